"""The benchmarks of the study of overfitting (arXiv 2603.14493)."""
