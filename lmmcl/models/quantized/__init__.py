"""Pre-trained weights held in 4 bits while adapters train on them (QLoRA)."""
