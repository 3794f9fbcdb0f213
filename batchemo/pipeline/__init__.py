"""The path of one medium from its file to its tables."""
