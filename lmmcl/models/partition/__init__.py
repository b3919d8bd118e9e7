"""Roles of any architecture of transformers, from its modules and its configuration."""

from lmmcl.models.partition.regions import partition

__all__ = ["partition"]
