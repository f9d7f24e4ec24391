"""Work for which nobody waits: many requests in one file, run where the engine has room, at a price of their own."""
