"""Reads pictures and videos as a player or viewer shows them: discovery, containers, decoders, presentation."""
