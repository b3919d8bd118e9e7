"""A sweep in MLflow: a view of the ledger that can be filled again at any time."""
