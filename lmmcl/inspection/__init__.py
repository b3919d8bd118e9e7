"""Reads a store and runs nothing: status, audit, catalog, details of a step, garbage collection."""
