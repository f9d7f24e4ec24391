"""The shapes of answers, as TypedDicts: what the documents say of them, and encoders return."""
