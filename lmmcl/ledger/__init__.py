"""What has been computed: a store of records, on disk or object store, that runs and clusters share."""

from lmmcl.ledger.ledger import Ledger
from lmmcl.ledger.pending_record import PendingRecord
from lmmcl.ledger.record import ASIDE, Record

__all__ = ["ASIDE", "Ledger", "PendingRecord", "Record"]
