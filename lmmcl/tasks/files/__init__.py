"""Skills and benchmarks from local files: formats, checks, digests."""
