"""Every use of a private name of vLLM, or of a library that comes with it, and nothing else."""
