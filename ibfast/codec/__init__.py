"""The stream's binary format, both ways: all that the server and a client of it share."""
