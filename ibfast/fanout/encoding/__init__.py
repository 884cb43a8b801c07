"""From rows to messages: each channel encoded once, whoever reads."""
