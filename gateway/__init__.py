"""HTTP: the gateway in front of the engines. The only package that knows of requests and responses."""
