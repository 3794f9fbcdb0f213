"""Recurring runs: job files, schedules, history, drift."""
