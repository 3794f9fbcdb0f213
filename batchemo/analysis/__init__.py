"""Analyses results in pandas: smoothing, episodes, shares, transitions, plots, exports."""
