"""What an on-policy mitigation may do with the model at one batch of a stage: sample answers, and read them (see `Policy`).

Samples follow from seed, update and row alone, so that they are the same however an update is cut, and when a stage is resumed. The
gradient passes through the model as the strategy wraps it, all else through the model itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from lmmcl.errors import UserError
from lmmcl.methods.losses.start_model import answer_logits
from lmmcl.methods.on_policy.policy import Sample
from lmmcl.models.generation.token_sampling import continued, sample_answers, uniforms
from lmmcl.models.processing.answers import answer_text
from lmmcl.models.processing.padding import IGNORED, pad
from lmmcl.tasks.examples import Example
from lmmcl.training.stage.collate import COMPANION, StageData, has_images


class Rollouts:
    """The `Policy` of one batch of `trainer`, whose model is `wrapped` by the strategy; `rows` are rows of the stage's examples."""

    def __init__(self, trainer: Any, wrapped: Any, rows: Sequence[int]) -> None:
        self._trainer, self._wrapped, self.rows = trainer, wrapped, rows
        self.model = trainer.taught
        self._data: StageData = trainer.train_dataset
        self._skill = trainer.step.skill
        self.update: int = trainer.state.global_step
        self.updates: int = trainer.args.max_steps

    def sample(self, count: int, temperature: float, max_new_tokens: int | None) -> list[Sample]:
        """See `Policy.sample`."""
        longest = max_new_tokens or self._skill.benchmark.max_new_tokens
        seed, places = self._trainer.step.seed, [(row, answer) for row in self.rows for answer in range(count)]
        answers = sample_answers(
            self.model,
            self._data.processor,
            [self._data.prompt(row) for row, _ in places],
            [uniforms(seed, self.update, row, answer, longest) for row, answer in places],
            temperature=temperature,
            prepare=self._trainer.prepare_batch,
        )
        return [
            Sample(row, tuple(tokens), answer_text(self._data.processor, tokens))
            for (row, _), tokens in zip(places, answers, strict=True)
        ]

    def logits(self, samples: Sequence[Sample]) -> Tensor:
        """See `Policy.logits`."""
        encoded = [continued(self._data.prompt(sample.row), sample.tokens) for sample in samples]
        companion = self._trainer.data_collator.companion
        alone = companion is not None and not any(map(has_images, encoded))
        batch = pad(self._data.processor, [*encoded, companion] if alone else encoded)
        outputs = self._wrapped(**self._inputs(batch))
        logits = answer_logits(outputs.logits, batch["labels"])[0]
        return logits + 0.0 * outputs.logits[-1].float().sum() if alone else logits

    def other_logits(
        self,
        samples: Sequence[Sample],
        *,
        weights: Mapping[str, Tensor] | None = None,
        prompt: Callable[[Example], Example] | None = None,
        prompt_name: str = "",
    ) -> Tensor:
        """See `Policy.other_logits`."""
        encoded = [continued(self._data.prompt(one.row, prompt, prompt_name), one.tokens) for one in samples]
        batch = pad(self._data.processor, encoded)
        with torch.no_grad(), _evaluating(self.model):
            if weights is None:
                outputs = self.model(**self._inputs(batch))
            else:
                own = dict(self.model.named_parameters())
                other = {name: value.to(own[name]) for name, value in weights.items()}
                outputs = functional_call(self.model, other, (), self._inputs(batch))
        return answer_logits(outputs.logits, batch["labels"])[0]

    def _inputs(self, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """What the model takes of a batch, on its device; only the logits that predict the samples are wanted."""
        first = int((batch["labels"] != IGNORED).any(dim=0).int().argmax())
        inputs = self._trainer.model_inputs(batch, batch["labels"].shape[1] - first + 1)
        return self._trainer.prepare_batch({name: value for name, value in inputs.items() if name != COMPANION})

    def reward(self, sample: Sample) -> float:
        """See `Policy.reward`."""
        if len(self._skill.parts) > 1:
            raise UserError(
                f"{self._skill.name} teaches {len(self._skill.parts)} skills at once, and a reward is one skill's metric",
                place="mitigation",
            )
        example = self._data.examples[sample.row]
        return self._skill.benchmark.scoring().score(sample.text, example)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Inside the `with`, no dropout."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
