"""Recipes: which parameters train, and which adapters are added."""
