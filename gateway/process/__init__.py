"""The running program: its server, its workers, and how it is put together."""
