"""What an embedding array is: products, codecs, classes, fitted models, and the rules that tell them apart."""
