"""Measures the tracker in synthetic scenes, and fits the appearance embedding."""
