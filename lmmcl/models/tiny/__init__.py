"""The tiny models that ship."""
