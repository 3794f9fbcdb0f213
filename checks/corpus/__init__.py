"""Clips whose frames say which they are and where up is, made in every way that presents them otherwise, and the truth about them."""
