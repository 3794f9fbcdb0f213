"""Fits networks: training loop, recipes of targets, fine-tuning, sweeps."""
