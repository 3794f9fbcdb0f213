"""Trains, measures and ships the networks of batchemo."""
