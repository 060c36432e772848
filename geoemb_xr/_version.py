"""The version of the package, where everything that is written finds it."""

__version__ = "0.2.0.dev0"
