"""What decides, while a sweep runs, which trials there are and how far they go: proposers, schedulers, budgets."""
