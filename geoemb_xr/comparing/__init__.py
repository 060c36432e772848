"""Products and maps side by side: evaluation, controls, areas with intervals."""
