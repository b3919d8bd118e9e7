"""Mitigations that change the data of a stage."""
