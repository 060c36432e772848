"""Similarity maps, and the search for the places most alike."""
