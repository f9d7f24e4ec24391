"""The demo model that ships with Farebox: weights, tokenizer, and the script that makes them.

Importing this package loads nothing heavy; `engine.demo.train` is the only part that needs torch.
"""

from pathlib import Path

MODEL_DIR: Path = Path(__file__).resolve().parent / "model"
"""Folder of the shipped model in Hugging Face layout: give it to vLLM as `model`."""

__all__ = ["MODEL_DIR"]
