"""How bytes are reached: paths, objects behind URLs, index files."""
