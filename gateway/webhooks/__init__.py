"""Answers that are delivered to a URL: signed, retried, and kept until they arrive."""
