"""One `Finetune` step: what runs in a stage, how it survives faults, how several workers share it."""
