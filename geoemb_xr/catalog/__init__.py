"""One file per product: its facts as ``PRODUCT = Product(…)``, and how it is opened."""
