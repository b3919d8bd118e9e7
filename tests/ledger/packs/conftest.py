"""The stores that the tests of packs begin with."""

from packed_steps import ledger, local

__all__ = ["ledger", "local"]
