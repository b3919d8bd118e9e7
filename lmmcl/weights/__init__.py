"""Weights of steps: deltas against the parent, whole models from chains of them, and merges."""
