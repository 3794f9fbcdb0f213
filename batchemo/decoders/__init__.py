"""One module a decoder; `batchemo.decode` chooses between them."""
