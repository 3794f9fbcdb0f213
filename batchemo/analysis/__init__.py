"""Questions to results, answered in pandas: smoothing, episodes, shares, transitions, plots, exports."""
