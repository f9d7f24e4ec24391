"""`Idempotency-Key`: one charge and one answer for a request that is sent again."""
