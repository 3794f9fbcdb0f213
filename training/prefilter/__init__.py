"""Trains the pre-filter of the face detector."""
