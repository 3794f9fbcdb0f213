"""What people look at: annotated copies, thumbnails, and how faces are hidden in them."""
