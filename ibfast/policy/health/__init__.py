"""Whether a connection lives, and each stream on it."""
