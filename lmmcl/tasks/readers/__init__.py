"""One file a kind of container: each yields (row number, row) and knows nothing of dialogues."""
