"""Requests and tokens per minute, and requests at a time: in memory, or in Redis for several processes."""
