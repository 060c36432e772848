"""From a fitted model to a map, on CPU and GPU."""
