"""Not product: how the weights that ship were trained, and how the pictures of the README are taken."""
