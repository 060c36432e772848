"""Time, principal components, clusters, class maps."""
