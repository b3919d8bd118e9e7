"""From a model's last hidden states to its logits: a linear head, and what some models do to its outputs (scaling, soft caps).

Code that needs the logits of few tokens at a time runs this path; `Head.of` proves first that it gives the model's own logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Linear
    from transformers import PreTrainedModel

SOFT_CAP = "final_logit_softcapping"
SCALES = ("logit_scale", "logits_scaling", "logits_scale", "lm_head_multiplier", "output_multiplier_scale")
"""Names in configurations of a factor between the head's outputs and the logits, or of its inverse."""
TOLERANCE = {"float64": 1e-6, "float32": 1e-4}
HALF = 1e-2
"""Largest difference from the model's logits, as a share of the largest of them: products of other shapes round otherwise."""


@dataclass(frozen=True)
class Head:
    """What follows the head's product: `factor` times the outputs, then bounded by `cap` · tanh(· / cap) where there is a cap."""

    factor: float = 1.0
    cap: float = 0.0

    def logits(self, hidden: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """Logits (tokens, vocabulary) of hidden states (tokens, width), by the weights of a linear layer."""
        from torch.nn.functional import linear

        return self._after(linear(hidden, weights["weight"], weights.get("bias")))

    def _after(self, outputs: Tensor) -> Tensor:
        outputs = outputs if self.factor == 1 else outputs * self.factor
        return (outputs / self.cap).tanh() * self.cap if self.cap else outputs

    @classmethod
    def of(cls, model: PreTrainedModel, hidden: Tensor, logits: Tensor) -> Head:
        """The path by which `hidden` (tokens, width) became the model's own `logits`; raises UserError where none is known."""
        from torch.nn.functional import linear

        weights = head_weights(model)
        if weights["weight"].shape[::-1] != (hidden.shape[-1], logits.shape[-1]):
            raise UserError(
                f"the head of {type(model).__name__} maps {weights['weight'].shape[1]} numbers to {weights['weight'].shape[0]}; "
                f"its logits have {logits.shape[-1]} entries"
            )
        outputs = linear(hidden, weights["weight"], weights.get("bias"))
        bound = TOLERANCE.get(str(outputs.dtype).removeprefix("torch."), HALF) * float(logits.abs().max())
        differences: dict[Head, float] = {}
        for head in cls._candidates(model):
            differences[head] = float((head._after(outputs).float() - logits.float()).abs().max())
            if differences[head] <= bound:
                return head
        raise UserError(
            f"the logits of {type(model).__name__} are not those of its head: they differ by {min(differences.values()):.3g}, of "
            f"at most {float(logits.abs().max()):.3g}, so it computes something after its head that is not known here"
        )

    @classmethod
    def _candidates(cls, model: PreTrainedModel) -> Iterator[Head]:
        """What the model's configuration lets expect, then the plain head."""
        config = model.config.get_text_config()
        cap = float(getattr(config, SOFT_CAP, None) or 0)
        scales = [
            float(value) for name in SCALES if isinstance(value := getattr(config, name, None), int | float) and value
        ]
        factors = [1.0, *scales, *(1 / scale for scale in scales)]
        yield from (cls(factor, cap) for factor in factors)
        if cap:
            yield from (cls(factor) for factor in factors)


def head_layer(model: PreTrainedModel) -> Linear:
    """The model's head; raises UserError where it is not one plain linear layer."""
    from torch.nn import Linear

    layer: Any = model.get_output_embeddings()
    if not isinstance(layer, Linear):
        kind = type(layer).__name__ if layer is not None else "nothing that transformers knows of"
        raise UserError(f"the head of {type(model).__name__} is {kind}, not a plain linear layer")
    return layer


def head_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """The parameters of the head by name; they train where the model's do."""
    return dict(head_layer(model).named_parameters())


@contextmanager
def head_inputs(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Inside the `with`, a list of what the head is given at each forward pass: (batch, kept, width), with their gradients' way."""
    seen: list[Tensor] = []
    handle = head_layer(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()
