"""Does a shown demonstration raise a model's accuracy, and do its samples differ? What SDFT and GRPO ask of a model beforehand.

    python tests/bench/demonstrations.py [--model tiny-onevision] [--questions 100] [--answers 8]

For each skill: the score of greedy answers to training questions as they are, with the right answer in view as an earlier turn, and with
that of another question in view (what the form of an answer alone gives); the mean reward of sampled answers, and the share of questions
whose samples differ, and whose rewards do.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lmmcl.methods.on_policy.sdft import SDFT
from lmmcl.models import get_model
from lmmcl.models.generation.token_sampling import sample_answers, uniforms
from lmmcl.models.processing.answers import answer_text
from lmmcl.models.processing.encode import encode
from lmmcl.tasks import get_skill
from lmmcl.tasks.examples import Example
from lmmcl.tasks.skills import Skill

SKILLS = ("birds", "counting", "microscopy", "digits", "clock")
GREEDY = 1e-6
BATCH = 64


def answers(
    model: Any, processor: Any, skill: Skill, asked: Sequence[Example], each: int, temperature: float
) -> list[str]:
    """`each` answers to every question, in their order."""
    places = [(row, answer) for row in range(len(asked)) for answer in range(each)]
    texts: list[str] = []
    for at in range(0, len(places), BATCH):
        part = places[at : at + BATCH]
        prompts = [encode(processor, asked[row], with_answer=False) for row, _ in part]
        numbers = [uniforms(0, 0, row, answer, skill.benchmark.max_new_tokens) for row, answer in part]
        tokens = sample_answers(
            model, processor, prompts, numbers, temperature=temperature, prepare=lambda batch: batch
        )
        texts += [answer_text(processor, one) for one in tokens]
    return texts


def measure(model: Any, processor: Any, name: str, questions: int, each: int) -> list[str]:
    """The cells of one skill."""
    skill, show = get_skill(name), SDFT().demonstrated
    asked = list(skill.take(questions))
    score = skill.benchmark.scoring().score
    others = [replace(one, messages=(*one.prompt, asked[at - 7].messages[-1])) for at, one in enumerate(asked)]
    ways = (asked, [show(one) for one in asked], [show(one) for one in others])
    shown = [
        sum(score(text, one) for text, one in zip(answers(model, processor, skill, way, 1, GREEDY), asked, strict=True))
        for way in ways
    ]
    texts = answers(model, processor, skill, asked, each, 1.0)
    groups = [texts[at : at + each] for at in range(0, len(texts), each)]
    rewards = [[score(text, one) for text in group] for group, one in zip(groups, asked, strict=True)]
    shares = [
        sum(map(sum, rewards)) / len(texts),
        sum(len(set(group)) > 1 for group in groups) / len(asked),
        sum(len(set(group)) > 1 for group in rewards) / len(asked),
    ]
    return [name, *(f"{100 * value / len(asked):.0f}" for value in shown), *(f"{100 * share:.1f}" for share in shares)]


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny-onevision")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--answers", type=int, default=8)
    settings = parser.parse_args()
    lmm = get_model(settings.model)
    model, processor = lmm.load_model(), lmm.load_processor()
    heads = ["skill", "as asked", "answer shown", "another's shown", "sampled", "samples differ", "rewards differ"]
    print("|", " | ".join(heads), "|")
    print("|---|", "---:|" * (len(heads) - 1), sep="")
    for name in SKILLS:
        print("|", " | ".join(measure(model, processor, name, settings.questions, settings.answers)), "|", flush=True)


if __name__ == "__main__":
    main()
