"""The data model: products, codecs, classes, fitted models, and rules of comparability."""
