"""Pictures of a sweep beside that of the trade-off."""
