"""vLLM as an engine, for evaluation at scale: continuous batching and paged attention (`pip install lmmcl[vllm]`, GPUs).

One engine serves all checkpoints of a base in a process: see `vllm_pool`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from lmmcl.config.cluster import EvaluationPlacement
from lmmcl.errors import UserError
from lmmcl.evaluation.engines import Engine, EngineKind
from lmmcl.ledger import Ledger
from lmmcl.steps import Checkpoint
from lmmcl.steps.quantized import check_quantized_engine


def _open(
    checkpoint: Checkpoint, ledger: Ledger, placement: EvaluationPlacement, precision: str
) -> AbstractContextManager[Engine]:
    from lmmcl.evaluation.engines.vllm_pool import engine_of

    KIND.check()
    check_quantized_engine(checkpoint.model, KIND.name)
    if checkpoint.model.settings.tiles:
        raise UserError("vLLM reads the tiles that a checkpoint came with; use `engine: transformers` for `tiles`")
    return engine_of(checkpoint, ledger, placement, precision)


KIND = EngineKind("vllm", _open, package="vllm", extra="vllm")
ENGINES = (KIND,)
