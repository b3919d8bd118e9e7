"""What has been computed: a store of records, on disk or object store, that runs and clusters share."""

from lmmcl.ledger.ledger import ASIDE, Ledger
from lmmcl.ledger.pending_record import PendingRecord
from lmmcl.ledger.record import Record

__all__ = ["ASIDE", "Ledger", "PendingRecord", "Record"]
