"""What runs inside a stage: the loop, the Trainer, batches of examples, the proof of what trained."""
