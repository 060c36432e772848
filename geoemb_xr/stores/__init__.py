"""Access to bytes: paths, objects behind URLs, index files."""
