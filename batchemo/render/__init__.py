"""Draws annotated copies: overlays, blurred faces, video encoding, thumbnails."""
