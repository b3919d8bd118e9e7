"""A model card (README.md) of an exported checkpoint: metadata that the hub reads, and the same in words for a person."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.inspection.publishing.card_facts import CardFacts, card_facts
from lmmcl.inspection.publishing.card_stages import Stage
from lmmcl.inspection.publishing.licence import Licence, licence_of
from lmmcl.ledger import Ledger
from lmmcl.reports import formatting
from lmmcl.steps import Checkpoint

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

    from lmmcl.models.quantized.base_settings import BaseSettings

TRAINING = {
    "learning_rate": "learning rate",
    "epochs": "epochs",
    "max_steps": "updates",
    "examples": "examples at most",
    "global_batch_size": "global batch size",
    "lr_scheduler_type": "schedule",
    "warmup_ratio": "warm-up",
    "precision": "precision",
    "optimizer": "optimizer",
}
MARK = "<!-- as lmmcl wrote it:"
"""Begins the last line of a card: the digest of the text above it."""
FIRST = 8
"""Data sets and versions beyond which a line is no longer read."""


def make_card(step: Checkpoint, ledger: Ledger, *, name: str, adapter: bool, repository: str | None = None) -> str:
    """The card of a checkpoint that is called `name`, in a folder or in the `repository` that it goes to.

    With a repository, the hub is asked for the licence of the base.
    """
    from huggingface_hub import ModelCard

    facts = card_facts(step, ledger)
    licence = licence_of(step.model, online=repository is not None)
    data = card_data(facts, licence, name=name, adapter=adapter)
    text = card_text(facts, licence, adapter=adapter, at=repository or "THIS FOLDER")
    text = _marked(f"---\n{data.to_yaml()}\n---\n\n{text}")
    ModelCard(text)  # raises where its own reader does not take the metadata
    return text


def is_as_written(card: Path) -> bool:
    """Whether nobody has edited a card since it was written as `make_card` has it."""
    text = card.read_text(encoding="utf-8")
    return text == _marked(text.partition(f"\n{MARK}")[0] + "\n")


def _marked(text: str) -> str:
    """A card with the digest of its text at its end, which pages do not show."""
    text = text.rstrip("\n") + "\n"
    return f"{text}\n{MARK} {hashlib.sha256(text.encode()).hexdigest()[:16]} -->\n"


def card_data(facts: CardFacts, licence: Licence | None, *, name: str, adapter: bool) -> ModelCardData:
    """The metadata; what is not known is left out, and `base_model` too where the base is none of the hub."""
    from huggingface_hub import EvalResult, ModelCardData

    last = facts.stages[-1].scores if facts.stages else facts.base_scores
    results = [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type=benchmark,
            dataset_name=_benchmark(benchmark, facts),
            metric_type=facts.metrics.get(benchmark, "score"),
            metric_value=round(last[benchmark], 4),
        )
        for benchmark in facts.benchmarks()
        if benchmark in last
    ]
    known: dict[str, Any] = {"license": licence.id} if licence else {}
    known |= {"license_name": licence.name} if licence and licence.name else {}
    known |= {"license_link": licence.link} if licence and licence.link else {}
    known |= {"base_model": facts.hub} if facts.hub else {}
    # the hub infers "finetune" where this is missing, also of an adapter
    known |= {"base_model_relation": "adapter" if adapter else "finetune"} if facts.hub else {}
    known |= {"eval_results": results, "model_name": name} if results else {}
    return ModelCardData(
        library_name="peft" if adapter else "transformers",
        pipeline_tag="image-text-to-text",
        tags=["lmmcl", "continual-learning", *(["lora"] if facts.adapter == "lora" else [])],
        **known,
    )


def card_text(facts: CardFacts, licence: Licence | None, *, adapter: bool, at: str) -> str:
    """The card without its metadata (Markdown); `at` is what loads the model."""
    skills = [stage.skill for stage in facts.stages]
    what = f"{_base(facts)} fine-tuned on {_listed(skills)}" if skills else f"{_base(facts)}, unchanged"
    order = ", one after another in this order" if len(skills) > 1 else ""
    kind = "A PEFT adapter for it." if adapter else "Whole weights."
    if facts.quantized:
        kind += f" {_quantized(facts.quantized, adapter=adapter)}"
    parts = [
        f"# {facts.title}",
        f"{what}{order}. {kind} Checkpoint `{facts.key}` of the lmmcl sweep `{facts.sweep}`."
        if facts.sweep
        else f"{what}{order}. {kind} Checkpoint `{facts.key}`.",
        f"## Licence\n\n{_licence(facts, licence)}",
        f"## Use\n\n{_usage(facts, at, adapter=adapter)}",
        f"## Training\n\n{_training(facts)}",
        f"## Scores\n\n{_scores(facts)}",
        f"## Limitations\n\n{_limitations(facts)}",
        f"## How it was computed\n\n{_computed(facts)}",
    ]
    return "\n\n".join(parts) + "\n"


def _base(facts: CardFacts) -> str:
    if facts.hub:
        return f"[{facts.hub}](https://huggingface.co/{facts.hub}/tree/{facts.revision})"
    return f"`{facts.base}` ({facts.family})"


def _quantized(base: BaseSettings, *, adapter: bool) -> str:
    how = f"The weights under {', '.join(base.layers)} were held in 4 bits ({base.quantize}) while adapters trained on them."
    return how if adapter else f"{how} Here they are dequantised, with all adapters merged in."


def _licence(facts: CardFacts, licence: Licence | None) -> str:
    if licence is None:
        return (
            f"The licence of the base model `{facts.hub or facts.base}` is not known here: no card of it was at hand. Find out "
            "before you publish or use this model, and name it in the metadata above (`license`)."
        )
    named = f"{licence.name} ({licence.id})" if licence.name else licence.id
    at = f", see {licence.link}" if licence.link else ""
    return (
        f"The base model is under **{named}** ({licence.source}{at}), and what is derived from it usually is too. The "
        "training data may have terms of their own."
    )


def _usage(facts: CardFacts, at: str, *, adapter: bool) -> str:
    loader = "from transformers import AutoModelForImageTextToText, AutoProcessor\n"
    if not adapter:
        lines = f'model = AutoModelForImageTextToText.from_pretrained("{at}")\n'
        lines += f'processor = AutoProcessor.from_pretrained("{at}")'
        return f"```python\n{loader}\n{lines}\n```"
    revision = f', revision="{facts.revision}"' if facts.revision else ""
    base = facts.hub or "FOLDER OF THE BASE"
    lines = f'base = AutoModelForImageTextToText.from_pretrained("{base}"{revision})\n'
    lines += f'model = PeftModel.from_pretrained(base, "{at}")\n'
    lines += f'processor = AutoProcessor.from_pretrained("{base}"{revision})'
    code = f"```python\nfrom peft import PeftModel\n{loader}\n{lines}\n```"
    if facts.quantized is None:
        return code
    settings = f'load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant={facts.quantized.double_quant}'
    return (
        f"{code}\n\nScores are those of the adapter on the base in 4 bits. To have it so, pass "
        f"`quantization_config=BitsAndBytesConfig({settings}, llm_int8_skip_modules=[…])` with the base, where "
        "`llm_int8_skip_modules` names what was not in 4 bits (vision tower, projector, head)."
    )


def _training(facts: CardFacts) -> str:
    rows = [
        [str(stage.number), stage.skill, stage.data, f"`{stage.recipe}`", stage.mitigation or "none", _settings(stage)]
        for stage in facts.stages
    ]
    return _table(["stage", "skill", "training data", "trained part", "mitigation", "settings"], rows)


def _settings(stage: Stage) -> str:
    settings = [
        f"{word} {stage.training[name]}" for name, word in TRAINING.items() if stage.training.get(name) is not None
    ]
    return ", ".join([*settings, f"seed {stage.seed}"])


def _scores(facts: CardFacts) -> str:
    rows = [("0", "before", facts.base_scores), *((str(s.number), s.skill, s.scores) for s in facts.stages)]
    names = facts.benchmarks()
    lines = [
        [number, skill, *(f"{scores[name]:.1f}" if name in scores else "–" for name in names)]
        for number, skill, scores in rows
    ]
    counts = ", ".join(f"{name} {facts.questions[name]}" for name in names if name in facts.questions)
    measures = [
        f"- {name.replace('_', ' ')}: {value:+.1f}"
        for name in ("learning", "target_forgetting", "held_out_forgetting", "overall")
        if (value := facts.measure(name)) is not None
    ]
    head = [f"{name} (held out)" if name in facts.held_out else name for name in names]
    how = (
        f"In points of 100, after each stage. Questions: {counts}. Answers were generated by greedy decoding."
        if counts
        else "**This checkpoint was not evaluated.**"
    )
    if not names:
        return how
    return "\n\n".join([_table(["stage", "taught", *head], lines), how, *(["\n".join(measures)] if measures else [])])


def _benchmark(name: str, facts: CardFacts) -> str:
    """The name, with what the benchmark is for; one that asks in other words is neither target nor held out."""
    purpose = "held out" if name in facts.held_out else "target" if name in facts.targets else None
    return f"{name} ({purpose})" if purpose else name


def _limitations(facts: CardFacts) -> str:
    change = facts.measure("held_out_forgetting")
    if change is None:
        lost = "What it lost elsewhere is **not known**: no held-out benchmark was asked before and after training."
    else:
        change = round(change, 1) + 0.0  # no -0.0
        moved = (
            f"{'lost' if change < 0 else 'gained'} {abs(change):.1f} points" if change else "neither lost nor gained"
        )
        lost = (
            f"**Held-out forgetting**: over {len(facts.held_out)} benchmark{'s' * (len(facts.held_out) > 1)} that it was not "
            f"trained for ({_listed(list(facts.held_out))}) it {moved} on average, compared with its base"
            f"{' in 4 bits' if facts.quantized else ''}."
        )
    lines = [
        lost,
        "Other abilities of the base, its safety behaviour among them, were not measured and may have changed.",
    ]
    if facts.questions:
        few = formatting.plural(min(facts.questions.values()), "question")
        lines.append(f"Benchmarks had as few as {few}; small differences between scores mean nothing.")
    if facts.updates is not None:
        lines.append(f"The weights were taken after {facts.updates} updates of the last stage, not at its end.")
    return "\n".join(f"- {line}" for line in lines)


def _computed(facts: CardFacts) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in list(facts.versions.items())[:FIRST])
    lines = [f"- versions: {versions}"]
    lines += [f"- hardware of the last stage: {facts.hardware}"] if facts.hardware else []
    lines += [f"- base: revision `{facts.revision}`"] if facts.revision else []
    lines.append(f"- checkpoint: `{facts.label}`, key `{facts.key}`; what the key stands for is in `lmmcl.json`")
    again = f"\n\nTo compute it again:\n\n```sh\n{facts.command}\n```" if facts.command else ""
    return "\n".join(lines) + again


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else list(names))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
