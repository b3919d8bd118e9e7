"""Mitigations that change the update of a stage."""
