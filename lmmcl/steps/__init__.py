"""Steps: units of work that are done once, named by a key that is computed from what they compute.

Pretrained ─ Finetune ─ Finetune ─ …      each checkpoint's key holds its parents' keys
                ├─ Merge                  post-hoc mitigation of a stage, no training
                └─ Snapshot               the stage's weights after some of its updates
Evaluate(checkpoint, benchmark)           one per benchmark, so that one added later runs alone
ProbeStep(checkpoint, probe)              one per probe, likewise
"""

from lmmcl.steps.checkpoints import (
    Checkpoint,
    CheckpointStep,
    Finetune,
    Merge,
    Pretrained,
    Recorded,
    Snapshot,
    StepBase,
)
from lmmcl.steps.lineage import alike, examples_of, skills_of, stages_of
from lmmcl.steps.scoring import Evaluate, ProbeStep, ScoringStep

Step = Checkpoint | ScoringStep

__all__ = [
    "Checkpoint",
    "CheckpointStep",
    "Evaluate",
    "Finetune",
    "Merge",
    "Pretrained",
    "ProbeStep",
    "Recorded",
    "ScoringStep",
    "Snapshot",
    "Step",
    "StepBase",
    "alike",
    "examples_of",
    "skills_of",
    "stages_of",
]
