"""Mitigations that change the loss of a stage."""
