"""Exports results to the formats of other programs."""
