"""Reads, checks and augments labelled faces."""
