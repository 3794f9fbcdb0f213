"""Reads and writes a results folder: paths, schemas, tables, episodes."""
