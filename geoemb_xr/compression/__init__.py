"""Fewer bytes and smaller models: quantised and shortened vectors, students of a space, and kits for the field."""
