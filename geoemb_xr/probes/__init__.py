"""Probes: samples, methods, held-out scores, area of applicability."""
