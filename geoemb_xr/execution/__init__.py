"""Execution: blocks, threads, devices, workers, progress."""
