"""One file a model family: the roles of its parameters and its checkpoints on the hub."""
