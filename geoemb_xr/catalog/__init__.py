"""One file a product: its facts as ``PRODUCT = Product(…)``, how it is opened, and its example source."""
