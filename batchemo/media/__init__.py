"""Media as a player shows them: pictures, videos, their frames and times."""
