"""When to connect again, and when not to try."""
