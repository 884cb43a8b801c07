"""Policies of a connection: what to do, and when. No asyncio, no socket and no clock: `now_s` is a parameter."""
