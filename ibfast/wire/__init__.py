"""The vocabulary of the TWS socket protocol: what is sent and received, as values and as bytes.

Nothing in this package knows a socket, a loop or a clock.
"""
