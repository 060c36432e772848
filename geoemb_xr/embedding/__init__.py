"""Vectors from images or places: one file per family of encoders."""
