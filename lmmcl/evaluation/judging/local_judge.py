"""A judge that is a local model: asked greedily, in this process, loaded once for the benchmarks of a checkpoint."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from lmmcl.evaluation.generate import said
from lmmcl.models.sources.text_model import TextModel
from lmmcl.tasks.examples import ask
from lmmcl.tasks.metrics.judge import Judge
from lmmcl.tasks.skills import Benchmark

BATCH = 8


class LocalJudges:
    """The judges of a process, one in memory at a time, on `device`; at the end of a `with` block the memory is given back."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._model_id: str | None = None
        self._loaded: tuple[Any, Any] | None = None

    def __enter__(self) -> LocalJudges:
        return self

    def __exit__(self, *error: object) -> None:
        self._release()

    def ask(self, judge: Judge, prompts: Sequence[str], on_reply: Callable[[str, str], None]) -> None:
        """Ask each prompt; `on_reply` gets prompt and reply as they come."""
        assert judge.local is not None, "a judge without an address"
        model, reader = self._load(judge)
        replies = _of_text if isinstance(judge.local.model, TextModel) else _of_lmm
        for prompt, reply in zip(prompts, replies(judge, model, reader, prompts), strict=True):
            on_reply(prompt, reply)

    def _load(self, judge: Judge) -> tuple[Any, Any]:
        if self._loaded is None or self._model_id != judge.model_id:  # the id stands for content and precision
            self._release()
            assert judge.local is not None, "a judge without an address"
            source, precision = judge.local.model, judge.local.precision
            if isinstance(source, TextModel):
                self._loaded = source.load(precision=precision, device=self.device)
            else:
                model = source.load_model(precision=precision, device=self.device)
                self._loaded = (model, source.load_processor())
            self._model_id = judge.model_id
        return self._loaded

    def _release(self) -> None:
        if self._loaded is not None:
            self._loaded = self._model_id = None
            gc.collect()


def _of_lmm(judge: Judge, model: Any, processor: Any, prompts: Sequence[str]) -> Iterator[str]:
    """As a benchmark without images is asked: chat template, stops and greedy decoding are the same."""
    examples = [ask(str(number), prompt, "yes") for number, prompt in enumerate(prompts)]
    # The identity of a benchmark stands for its questions: other prompts are another one.
    digest = hashlib.sha256("\0".join(prompts).encode("utf-8", "surrogatepass")).hexdigest()
    asked = Benchmark(f"judge-{digest}", 1, "exact_match", lambda: examples, max_new_tokens=judge.max_new_tokens)
    return (reply for _, reply in said(model, processor, asked, limit=None, batch_size=BATCH, remember=False))


def _of_text(judge: Judge, model: Any, tokenizer: Any, prompts: Sequence[str]) -> Iterator[str]:
    for start in range(0, len(prompts), BATCH):
        texts = [_chat(tokenizer, prompt) for prompt in prompts[start : start + BATCH]]
        plain = tokenizer.chat_template is None
        batch = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=plain).to(model.device)
        batch.pop("token_type_ids", None)
        settings = {"do_sample": False, "num_beams": 1, "max_new_tokens": judge.max_new_tokens}
        with torch.inference_mode():
            tokens = model.generate(**batch, **settings, pad_token_id=tokenizer.pad_token_id)
        yield from tokenizer.batch_decode(tokens[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def _chat(tokenizer: Any, prompt: str) -> str:
    """The prompt in the model's chat template; a model without one gets it as it is."""
    if tokenizer.chat_template is None:
        return prompt
    messages = [{"role": "user", "content": prompt}]
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return text
