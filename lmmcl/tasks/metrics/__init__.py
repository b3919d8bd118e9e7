"""Metrics: how right a free-text answer is, from 0 to 1."""
