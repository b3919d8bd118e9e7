"""Tasks of lmms-eval as held-out benchmarks."""
