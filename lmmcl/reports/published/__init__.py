"""A sweep beside published figures."""
