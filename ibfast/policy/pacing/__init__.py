"""When which request may be sent, within IB's limits."""
