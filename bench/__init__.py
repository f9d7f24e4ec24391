"""Farebox beside vLLM's own servers: what stands in front of the engine, measured. `python -m bench --help`."""
