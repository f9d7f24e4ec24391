"""Grammars that constrain an answer: what of a client's schema can be kept, tried where it can do no harm.

Nothing here imports vLLM or torch: `trial_process` runs in a small process of its own.
"""
