"""Test clips for presentation: each frame shows its number and where up is; the ground truth comes from the `ffmpeg` command."""
