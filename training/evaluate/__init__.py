"""Measures networks and draws what they get wrong."""
