"""Faces in frames: detection, propagation, alignment, tracking, re-identification."""
