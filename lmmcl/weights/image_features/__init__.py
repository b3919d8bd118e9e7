"""Features of images that a frozen vision tower and projector make: each picture once, kept for every trial and stage."""
