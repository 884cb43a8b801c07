"""What the compiled decoder is made of: bytes to values."""
