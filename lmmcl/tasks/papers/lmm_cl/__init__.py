"""The five skills of LMM-CL (arXiv 2510.08564)."""
