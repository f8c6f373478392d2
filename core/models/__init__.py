"""Models: the gateway every model call goes through, local embeddings, and the offline model."""
