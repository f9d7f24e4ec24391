"""Files that clients upload for batches and get back from them."""
