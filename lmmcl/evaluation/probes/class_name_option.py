"""Task-specific overfitting (arXiv 2603.14493): how often a wrong option is picked because it is the class name of the image."""

from __future__ import annotations

from collections.abc import Sequence

from lmmcl.evaluation.generate import batches
from lmmcl.evaluation.probes.questions import rows_of, say
from lmmcl.evaluation.probes.subject import Findings, Subject, mean
from lmmcl.tasks.metrics.parse_answer import stated_letter
from lmmcl.tasks.probes import ClassNameOption
from lmmcl.tasks.skills import Benchmark
from lmmcl.tasks.synthetic.class_name import TRAP


def measure(probe: ClassNameOption, benchmarks: Sequence[Benchmark], subject: Subject) -> Findings:
    """`picked` and `right`, shares of the answers; `picked_control` where the option names another class; `excess`, the difference.

    `benchmarks` are the questions and their control, whose examples hold the letter of the option in their metadata.
    """
    trapped, control = benchmarks
    (picked, right, answers), (picked_control, *_) = (
        shares(benchmark, probe.examples, subject) for benchmark in (trapped, control)
    )
    values = {"picked": picked, "right": right, "picked_control": picked_control, "excess": picked - picked_control}
    return Findings(values, {"answers": answers})


def shares(benchmark: Benchmark, count: int, subject: Subject) -> tuple[float, float, dict[str, str]]:
    """(share of the answers that state the trap's letter, share that is right, answers by id)."""
    score = benchmark.scoring().score
    picked, right, answers = [], [], {}
    for batch in batches(rows_of(subject.processor, benchmark, count), subject.model, subject.batch_size):
        for (example, _), text in zip(batch, say(batch, benchmark.max_new_tokens, subject), strict=True):
            picked.append(float(stated_letter(text) == example.metadata[TRAP]))
            right.append(score(text, example))
            answers[example.id] = text
    return mean(picked), mean(right), answers
