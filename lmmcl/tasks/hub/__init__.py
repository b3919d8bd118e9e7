"""Skills and benchmarks whose rows come from the Hugging Face hub."""
