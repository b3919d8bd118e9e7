"""Skills and benchmarks drawn by code, for the embedded tiny model."""
