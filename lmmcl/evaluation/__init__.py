"""Scores and probes of checkpoints: generation, metrics question by question, the score matrix."""
