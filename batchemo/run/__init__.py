"""Many media: scheduling, worker processes, clusters, resuming."""
