"""Wire formats: what clients send and get."""
