"""The audit of a results folder."""
