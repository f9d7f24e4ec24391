"""Handlers of a few lines each: parse, call the pipeline, respond."""
