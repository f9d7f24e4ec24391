"""Tokens: the engines behind the gateway. The only package that imports vllm."""
