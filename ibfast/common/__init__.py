"""Small parts that several layers use; they know nothing of market data."""
