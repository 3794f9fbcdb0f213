"""Nightly jobs: files that say what is to be done when, and what became of it."""
