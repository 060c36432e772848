"""Similarity maps, and search for the most similar places."""
