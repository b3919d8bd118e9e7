"""The version of the package, on the ground so that every room can name it."""

__version__ = "0.1.0"
