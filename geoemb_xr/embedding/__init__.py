"""Vectors from places: one file per family of encoders."""
