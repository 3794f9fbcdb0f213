"""The web page of results and its summary."""
