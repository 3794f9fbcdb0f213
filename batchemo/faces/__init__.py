"""Finds and tracks faces: detection, optical flow, alignment, re-identification, tracking."""
