"""Writers of examples: one file a product, its small synthetic source in its publisher's format."""
