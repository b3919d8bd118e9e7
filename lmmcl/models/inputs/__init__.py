"""How a sweep lets a model be asked: a system turn, and what becomes of images before the processor sees them."""
