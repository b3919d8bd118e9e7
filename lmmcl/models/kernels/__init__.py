"""Products of matrices that cost less and have the same bits."""
