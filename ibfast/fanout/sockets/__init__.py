"""From messages to many sockets."""
