"""How work runs: blocks, threads, devices, workers, progress."""
