"""Greedy decoding: how a model is set to answer, and the one place beside `token_sampling.py` that calls `generate`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lmmcl.models.kernels.last_mlp import at_last_positions, last_mlp
from lmmcl.models.processing.encode import end_of_turn

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, ProcessorMixin
    from transformers.generation.utils import GenerateDecoderOnlyOutput


@contextmanager
def answering(model: PreTrainedModel, processor: ProcessorMixin) -> Iterator[None]:
    """A model set to answer greedily: no dropout, and nothing of the sampling settings that it was shipped with.

    Many checkpoints come with a temperature or a repetition penalty (Qwen2.5-VL: 1.05), which `generate` would
    silently apply. An answer ends where the checkpoint says, or the template's turn does. Everything is put back at the end.
    """
    from transformers import GenerationConfig

    shipped, training = model.generation_config, model.training
    ends = shipped.eos_token_id if shipped is not None else None
    stops = stop_tokens(processor) | set(ends if isinstance(ends, list) else [ends]) - {None}
    greedily = GenerationConfig(
        do_sample=False,
        num_beams=1,
        use_cache=True,
        pad_token_id=processor.tokenizer.pad_token_id,
        eos_token_id=sorted(stops),
    )
    # InstructBLIP generates with the language model inside it, which has settings of its own.
    inner: list[Any] = [
        module for module in model.modules() if isinstance(getattr(module, "generation_config", None), GenerationConfig)
    ]
    kept = [(module, module.generation_config) for module in inner]
    model.generation_config = greedily
    for module in inner:
        module.generation_config = greedily
    model.eval()
    try:
        yield
    finally:
        model.generation_config = shipped
        for module, settings in kept:
            module.generation_config = settings
        model.train(training)


def stop_tokens(processor: ProcessorMixin) -> set[int]:
    """The tokens that end an answer: the end of the text, and of the template's turn."""
    return {processor.tokenizer.eos_token_id, end_of_turn(processor)} - {None}


def greedy(
    model: PreTrainedModel, batch: dict[str, Tensor], max_new_tokens: int, **more: Any
) -> GenerateDecoderOnlyOutput:
    """Continue a padded batch (`input_ids`: (batch, length)) by the most probable token, up to `max_new_tokens`; use inside
    `answering`.

    `more` are switches of `generate` such as `output_logits=True`. Float tensors are given the model's own type.
    """
    import torch

    placed = {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
        for name, tensor in batch.items()
    }
    generate: Any = model.generate  # typed as a Tensor or Module by torch's __getattr__
    whole = more.get("output_hidden_states") or more.get("output_attentions")
    last = at_last_positions(
        last_mlp(model), None if whole else 1
    )  # the first pass reads the prompt, and only its end answers
    with torch.inference_mode(), last:
        return generate(**placed, max_new_tokens=max_new_tokens, return_dict_in_generate=True, **more)


def new_tokens(output: GenerateDecoderOnlyOutput, batch: dict[str, Tensor]) -> Tensor:
    """The generated tokens alone, (batch, new); a row that ended early is filled up with the pad token."""
    return output.sequences[:, batch["input_ids"].shape[1] :]
