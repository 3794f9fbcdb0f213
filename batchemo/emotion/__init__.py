"""The expression classifier: its network, its weights, inference."""
