"""Answers on their way out: from deltas to JSON documents and server-sent events."""
