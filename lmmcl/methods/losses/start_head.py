"""What the start model said of every answer token, kept as its last hidden states, and the divergence from it.

The states go through the head, some tokens at a time (see `divergence.py`). Where the head itself trains, or is divided among
workers, a frozen copy of it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError
from lmmcl.methods.losses.divergence import head_divergence
from lmmcl.methods.losses.start_model import answer_positions, score_rows
from lmmcl.methods.mitigation import HIDDEN, StageContext
from lmmcl.models.head import Head, head_inputs, head_weights

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def hidden_states(context: StageContext, name: str, remedy: str = "") -> dict[str, Any]:
    """The hidden states of the answers of every row, and what else is needed to read them; state for `divergence_from_start`.

    Raises UserError, with `remedy`, for a model whose logits are not those of a linear head; `name` is the mitigation's.
    """
    model, paths = context.model, list[Head]()
    try:
        weights = head_weights(model)
        with head_inputs(model) as seen:
            rows = score_rows(context, lambda outputs, labels: _hidden(context, seen, outputs, labels, paths))
    except UserError as error:
        raise UserError(f"{error.message}{remedy}", place=name) from error
    state: dict[str, Any] = {"rows": rows, "factor": paths[0].factor, "cap": paths[0].cap}
    if context.is_divided or any(weight.requires_grad for weight in weights.values()):
        state["head"] = {name: weight.detach().clone() for name, weight in weights.items()}
    return state


def _hidden(
    context: StageContext, seen: list[Tensor], outputs: Any, labels: Tensor, paths: list[Head]
) -> tuple[Tensor, list[int]]:
    """The last hidden states (tokens, width) that predict the answers, and how many each row has.

    On the first batch the path from them to the model's own logits is found and proved.
    """
    hidden = seen.pop() if seen else None
    if hidden is None or hidden.shape[:-1] != outputs.logits.shape[:-1]:
        raise UserError(f"{type(context.model).__name__} does not give its head one vector for each of its logits")
    answers, _, counts = answer_positions(hidden, labels)
    if not paths:
        logits, _, _ = answer_positions(outputs.logits, labels)
        with context.autocast():
            paths.append(Head.of(context.model, answers, logits))
    return answers, counts


def divergence_from_start(
    state: dict[str, Any],
    model: PreTrainedModel,
    batch: Mapping[str, Tensor],
    taught: Tensor,
    *,
    temperature: float = 1.0,
    reverse: bool = False,
) -> Tensor:
    """KL(start ‖ model) of the answer tokens of a batch, summed; `reverse` gives KL(model ‖ start).

    `taught` is what was kept of them.
    """
    hidden, _, _ = answer_positions(batch[HIDDEN], batch["labels"])
    own = head_weights(model)
    frozen = {name: weight.to(hidden) for name, weight in state.get("head", {}).items()}
    state |= {"head": frozen} if frozen else {}
    trains = any(weight.requires_grad for weight in own.values())
    return head_divergence(
        Head(state["factor"], state["cap"]),
        hidden,
        taught.to(hidden),
        student=own if trains or not frozen else frozen,
        teacher=frozen or own,
        temperature=temperature,
        reverse=reverse,
    )
