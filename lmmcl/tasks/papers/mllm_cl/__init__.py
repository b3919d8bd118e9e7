"""The five domains of MLLM-CL (arXiv 2506.05453)."""
