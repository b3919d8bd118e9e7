"""How several workers train one stage: strategies, worker groups, micro-batches."""
