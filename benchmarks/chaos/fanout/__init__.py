"""The fan-out tester."""
