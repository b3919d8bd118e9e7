"""A model in vLLM that is asked the questions of benchmarks.

Prompts go in as the tokens that transformers would be given, with one placeholder for each image, which vLLM's processor of the
same architecture expands; of the checkpoint's sampling settings none is used. Written against vLLM's documented offline interface
(`LLM`, `SamplingParams`, prompts with `prompt_token_ids` and `multi_modal_data`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from transformers import GenerationConfig, ProcessorMixin
from transformers.utils import GENERATION_CONFIG_NAME

from lmmcl.config.cluster import EvaluationPlacement
from lmmcl.errors import UserError
from lmmcl.evaluation.encodings import question, read_question
from lmmcl.evaluation.engines import Engine
from lmmcl.evaluation.generate import known_answers
from lmmcl.models.generation.decoding import stop_tokens
from lmmcl.models.inputs.shown_images import shown_images
from lmmcl.models.processing.answers import answer_text
from lmmcl.models.processing.encode import prompt_ids
from lmmcl.tasks.examples import Example
from lmmcl.tasks.skills import Benchmark

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
MOST_IMAGES = 8
"""Images of one question that room is kept for."""
WINDOWS = 8
"""Batches of questions handed over at a time: enough to keep vLLM busy, few enough to hold their images."""


class Vllm(Engine):
    """A checkpoint in a `save_pretrained` folder, loaded by vLLM on `placement.gpus` GPUs (at least one)."""

    name = "vllm"
    image_backend = "vllm"  # it reads the images' sizes and pixels with a processor of its own

    def __init__(
        self, folder: Path, processor: ProcessorMixin, placement: EvaluationPlacement, precision: str, **settings: Any
    ) -> None:
        from vllm import LLM

        self.lora: Any = None
        """The adapter that answers, as vLLM's `LoRARequest`."""

        self.processor, self.batch_size = processor, placement.batch_size
        shipped = (
            GenerationConfig.from_pretrained(folder).eos_token_id
            if (folder / GENERATION_CONFIG_NAME).is_file()
            else None
        )
        self.stops = sorted(stop_tokens(processor) | set(shipped if isinstance(shipped, list) else [shipped]) - {None})
        self.model: Any = LLM(
            model=str(folder),
            dtype=DTYPES[precision],
            tensor_parallel_size=max(1, int(placement.gpus)),
            max_num_seqs=placement.batch_size,
            limit_mm_per_prompt={"image": MOST_IMAGES},
            generation_config="vllm",  # not the checkpoint's: its temperature or repetition penalty is not greedy
            seed=0,
            **settings,
        )

    def answers(
        self, benchmark: Benchmark, limit: int | None, *, answered: Sequence[str] = ()
    ) -> Iterator[tuple[Example, str]]:
        from vllm import SamplingParams

        settings = SamplingParams(temperature=0.0, max_tokens=benchmark.max_new_tokens, stop_token_ids=self.stops)
        examples = benchmark.take(limit)
        count = len(examples)
        if not count:
            raise UserError("has no questions", file=f"benchmark {benchmark.name}")
        yield from known_answers(benchmark, limit, answered)
        size = self.batch_size * WINDOWS
        for start in range(len(answered), count, size):
            window = [question(benchmark, examples, row) for row in range(start, min(start + size, count))]
            yield from self._say(window, benchmark, settings)

    def _say(self, examples: Sequence[Example], benchmark: Benchmark, settings: Any) -> Iterator[tuple[Example, str]]:
        prompts = [read_question(benchmark, example, lambda: self._prompt(example)) for example in examples]  # noqa: B023
        lora = {"lora_request": self.lora} if self.lora else {}
        outputs = self.model.generate(prompts, settings, use_tqdm=False, **lora)
        for example, output in zip(examples, outputs, strict=True):
            yield example, answer_text(self.processor, output.outputs[0].token_ids)

    def _prompt(self, example: Example) -> dict[str, Any]:
        if len(example.images) > MOST_IMAGES:
            raise UserError(
                f"shows {len(example.images)} images, but vLLM is configured for at most "
                f"{MOST_IMAGES} per question; use `engine: transformers`"
            )
        prompt: dict[str, Any] = {"prompt_token_ids": prompt_ids(self.processor, example)}
        images = shown_images(self.processor, example)
        return {**prompt, "multi_modal_data": {"image": images}} if images else prompt
