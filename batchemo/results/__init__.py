"""What a results folder holds: paths, schemas, writing and reading of its tables."""
