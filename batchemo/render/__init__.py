"""Annotated copies: overlays, blur, video encoding, thumbnails."""
