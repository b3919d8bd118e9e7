"""A benchmark's answers judged: what is known is recalled, the rest asked, some of it twice, and all of it counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmmcl.errors import UserError, cut
from lmmcl.evaluation.judging.local_judge import LocalJudges
from lmmcl.evaluation.judging.server import ask_server
from lmmcl.evaluation.judging.verdicts import Verdict, Verdicts, read_verdict
from lmmcl.evaluation.samples import Sample
from lmmcl.ledger import Ledger
from lmmcl.tasks.metrics.judge import Judge
from lmmcl.tasks.sampling import sample_rows

REPLY = "judge"
"""Where a sample's metadata holds what the judge replied."""
Ask = Callable[[Sequence[str], Callable[[str, str], None]], None]


def judge_samples(
    benchmark: str, judge: Judge, samples: Sequence[Sample], ledger: Ledger, judges: LocalJudges
) -> tuple[list[Sample], dict[str, Any]]:
    """(samples with their scores and replies, what the record holds of the judging). `judges` loads one without an address.

    A reply without a verdict scores 0 and is counted; raises UserError where there are more of these than the judge's setting
    allows: no score is made of replies that nobody can read.
    """
    ask, verdicts = _asker(judge, judges), Verdicts(judge, ledger)
    prompts = [judge.fill(sample.question, sample.references, sample.prediction) for sample in samples]
    first, asked = _judged(prompts, ask, verdicts)
    pairs = [(sample, first[prompt]) for sample, prompt in zip(samples, prompts, strict=True)]
    unreadable = [pair for pair in pairs if pair[1].right is None]
    if len(unreadable) > judge.most_unreadable * len(samples):
        raise UserError(_too_many(judge, unreadable, len(samples)), file=f"benchmark {benchmark}")
    facts = {"model": judge.label, "asked": asked, "recalled": len(first) - asked, "unreadable": len(unreadable)}
    return [_scored(*pair) for pair in pairs], {**facts, **_agreement(judge, prompts, first, ask, verdicts)}


def _agreement(
    judge: Judge, prompts: Sequence[str], first: Mapping[str, Verdict], ask: Ask, verdicts: Verdicts
) -> dict[str, Any]:
    """How often a fixed sample of the answers gets the same verdict when it is judged a second time."""
    twice = [prompts[row] for row in sample_rows(len(prompts), min(judge.ask_twice, len(prompts)))]
    second, _ = _judged(twice, ask, verdicts, again=True)
    both = [(first[prompt].right, second[prompt].right) for prompt in twice]
    readable = [pair for pair in both if None not in pair]
    equal = sum(one == other for one, other in readable)
    return {"asked_twice": len(readable), "agreement": equal / len(readable) if readable else None}


def _asker(judge: Judge, judges: LocalJudges) -> Ask:
    if judge.address:
        return lambda prompts, on_reply: ask_server(judge, prompts, on_reply)
    return lambda prompts, on_reply: judges.ask(judge, prompts, on_reply)


def _judged(
    prompts: Sequence[str], ask: Ask, verdicts: Verdicts, *, again: bool = False
) -> tuple[dict[str, Verdict], int]:
    """(verdict by prompt, how many were asked now); each is kept as it comes, so that a kill loses none that was paid for."""
    wanted = list(dict.fromkeys(prompts))
    known = verdicts.recall(wanted, again=again)
    missing = [prompt for prompt in wanted if prompt not in known]

    def on_reply(prompt: str, reply: str) -> None:
        known[prompt] = read_verdict(reply)
        verdicts.keep({prompt: known[prompt]}, again=again)

    if missing:
        ask(missing, on_reply)
    return known, len(missing)


def _scored(sample: Sample, verdict: Verdict) -> Sample:
    metadata = {**sample.metadata, REPLY: verdict.reply}
    return Sample(sample.id, sample.question, sample.references, sample.prediction, float(verdict.right or 0), metadata)


def _too_many(judge: Judge, unreadable: Sequence[tuple[Sample, Verdict]], replies: int) -> str:
    sample, verdict = unreadable[0]
    return (
        f"{len(unreadable)} of {replies} replies of the judge {judge.label} hold no verdict, more than most_unreadable "
        f"({judge.most_unreadable:g}) allows, such as {cut(repr(verdict.reply), 120)} for question {sample.id!r}. "
        "Let the prompt ask for `VERDICT: yes` or `VERDICT: no` within max_new_tokens, or choose another judge"
    )
