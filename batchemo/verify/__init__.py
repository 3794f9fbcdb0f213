"""Audits a results folder: its tables among themselves, and against the media."""
