"""Cards, plots, and the interactive explorer."""
