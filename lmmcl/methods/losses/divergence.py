"""KL between two models over the whole vocabulary from their last hidden states, without a table of tokens × vocabulary.

Some tokens at a time go through both heads. The gradient is taken there and then, of the student's hidden states and, where
it trains, of its head, so that no distribution over the vocabulary outlives its chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from lmmcl.models.head import Head

CHUNK_ENTRIES = 2**21
"""Of a chunk's table at the least, so that a small vocabulary is one product."""
LARGEST_SHARE = 16
"""Number of chunks of a large vocabulary: its half dozen tables stay under those that the cross entropy holds anyway."""


def head_divergence(
    head: Head,
    hidden: Tensor,
    taught: Tensor,
    *,
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
    temperature: float,
    reverse: bool = False,
) -> Tensor:
    """KL(softmax(teacher / T) ‖ softmax(student / T)), summed over tokens; differentiable. `reverse` exchanges the two.

    `hidden` are the student's hidden states and `taught` the teacher's, both (tokens, width); `student` and `teacher` are weights
    of their heads. Where the student's head trains, it has its part of the gradient.
    """
    import torch

    names = [name for name, weight in student.items() if weight.requires_grad]

    class Divergence(torch.autograd.Function):
        """Computes its gradients on the way forward, and scales them on the way back."""

        @staticmethod
        def forward(ctx: Any, hidden: Tensor, *weights: Tensor) -> Tensor:
            moving = {**student, **dict(zip(names, weights, strict=True))}
            total, gradients = _by_chunks(head, hidden, taught, moving, teacher, temperature, list(weights), reverse)
            ctx.save_for_backward(*gradients)
            return total

        @staticmethod
        def backward(ctx: Any, *scale: Tensor) -> Any:
            return tuple(gradient.mul_(scale[0]) for gradient in ctx.saved_tensors)

    return Divergence.apply(hidden, *(student[name] for name in names))


def _by_chunks(
    head: Head,
    hidden: Tensor,
    taught: Tensor,
    student: Mapping[str, Tensor],
    teacher: Mapping[str, Tensor],
    temperature: float,
    weights: list[Tensor],
    reverse: bool,
) -> tuple[Tensor, list[Tensor]]:
    """The sum over all tokens, and its gradients of `hidden` and of the `weights`, which `student` holds."""
    import torch

    gradients = [torch.zeros_like(tensor) for tensor in (hidden, *weights)]
    size = max(1, CHUNK_ENTRIES // student["weight"].shape[0], -(-len(hidden) // LARGEST_SHARE))
    total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
    for start in range(0, len(hidden), size):
        part = slice(start, start + size)
        wise = _log_probabilities(head, taught[part], teacher, temperature).detach()
        with torch.enable_grad():
            chunk = hidden[part].detach().requires_grad_()
            log_probabilities = _log_probabilities(head, chunk, student, temperature)
            divergence = kl(log_probabilities, wise) if reverse else kl(wise, log_probabilities)
            own, *others = torch.autograd.grad(divergence, [chunk, *weights])
        gradients[0][part] = own
        for gradient, other in zip(gradients[1:], others, strict=True):
            gradient += other
        total += divergence.detach()
    return total, gradients


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) in nats, summed over all tokens, of log-probabilities (tokens, vocabulary)."""
    return (p.exp() * (p - q)).sum()


def _log_probabilities(head: Head, hidden: Tensor, weights: Mapping[str, Tensor], temperature: float) -> Tensor:
    import torch

    logits = head.logits(hidden, weights)
    return (logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature).log_softmax(dim=-1)
