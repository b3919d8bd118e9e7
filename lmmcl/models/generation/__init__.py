"""How a model answers: greedily, or by drawing each token."""
