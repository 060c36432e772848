"""From labels to a probe: samples, methods, held-out scores, applicability."""
