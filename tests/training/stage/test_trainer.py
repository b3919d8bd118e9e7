"""The loss of a stage, by itself."""

from __future__ import annotations

import torch

from lmmcl.models import get_model
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import pad
from lmmcl.tasks.examples import ask
from lmmcl.training.efficiency.answer_loss import answer_loss, answer_span


def test_the_loss_of_the_kept_logits_is_the_models_own_loss() -> None:
    lmm = get_model("tiny-onevision")
    model, processor = lmm.load_model(), lmm.load_processor()
    examples = [ask("a", "What is it?", "red"), ask("b", "What is it in this picture?", "a red square left of it")]
    batch = pad(processor, [encode(processor, example, with_answer=True) for example in examples])
    labels = batch["labels"]
    with torch.no_grad():
        expected = model(**batch).loss
        del batch["labels"]
        for kept in (labels.shape[1], answer_span(labels) + 1):
            logits = model(**batch, logits_to_keep=kept).logits
            torch.testing.assert_close(answer_loss(logits, labels, int((labels != -100).sum())), expected)


def test_the_span_of_answers_starts_at_the_first_taught_token_of_any_row() -> None:
    labels = torch.tensor([[-100, -100, -100, 5, 2], [-100, -100, 7, -100, 2]])
    assert answer_span(labels) == 3
