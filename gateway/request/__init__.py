"""One request from its body to its charge."""
