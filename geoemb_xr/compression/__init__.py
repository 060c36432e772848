"""Compression: quantised and shortened vectors, distilled students, and kits for offline use."""
