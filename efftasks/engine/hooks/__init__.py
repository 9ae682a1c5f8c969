"""Training hooks, a file each: checkpoints, seeds, training progress, precision, threads, unreadable images."""
