"""A checkpoint for others: its model card, and a folder pushed to the hub."""
