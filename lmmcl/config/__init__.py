"""What is to be computed, and where: sweep files, cluster files, settings. Pure: no torch, no ray."""
