"""Media as a player shows them: which there are, and their frames at their times."""
