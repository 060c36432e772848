"""Writers of examples: one file per product, its small synthetic source in its publisher's format."""
