"""Every use of a private name of vLLM, transformers or tokenizers, and nothing else."""
