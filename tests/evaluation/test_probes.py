"""Probes find what was planted in a model, and nothing in a model that did not change."""

from __future__ import annotations

import copy
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lmmcl.config.settings import Evaluation
from lmmcl.errors import UserError
from lmmcl.evaluation.probes import Findings, Subject, examine, record_probe
from lmmcl.evaluation.probes.constrained import Forbid
from lmmcl.evaluation.probes.kl_from_base import kl
from lmmcl.evaluation.probes.layer_contribution import parts_of
from lmmcl.evaluation.probes.questions import not_about, rows_of, say
from lmmcl.evaluation.probes.teacher import answers, forward
from lmmcl.evaluation.probes.token_bias import _watch
from lmmcl.evaluation.probes.token_sets import token_set
from lmmcl.ledger import Ledger
from lmmcl.models import get_model
from lmmcl.models.processing.padding import IGNORED
from lmmcl.steps import Pretrained, ProbeStep
from lmmcl.tasks import get_benchmark, get_skill
from lmmcl.tasks.examples import ask
from lmmcl.tasks.probes import PROBES, get_probe
from lmmcl.tasks.skills import Benchmark
from lmmcl.tasks.synthetic.class_name import BIRD_PARTS, TRAP

FAMILIES = ["tiny-onevision", "tiny-next", "tiny-qwen"]
HELD_OUT = tuple(get_benchmark(name) for name in ("colour", "size", "presence", "position"))


@cache
def loaded(name: str) -> tuple[Any, Any, Any]:
    lmm = get_model(name)
    return lmm, lmm.load_model(), lmm.load_processor()


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def changed(model: Any, *parameters: str, by: float = 1.5) -> Any:
    tuned = copy.deepcopy(model)
    with torch.no_grad():
        for name in parameters:
            tuned.get_parameter(name).mul_(by)
    return tuned


def subject(name: str, model: Any = None, *, batch_size: int = 8) -> Subject:
    lmm, base, processor = loaded(name)
    return Subject(lmm, base if model is None else model, processor, lambda: base, batch_size)


def found(probe: Any, of: Subject, benchmarks: tuple[Benchmark, ...] = HELD_OUT) -> Findings:
    wanted = get_probe(probe)
    return examine(ProbeStep(Pretrained(of.lmm), wanted, wanted.benchmarks(benchmarks), Evaluation()), of)


class Saying(torch.nn.Module):
    """An LM head that says some tokens alike, whatever it reads."""

    def __init__(self, head: torch.nn.Module, tokens: list[int], size: int) -> None:
        super().__init__()
        self.weight = head.weight  # transformers looks at it
        self.register_buffer("said", torch.full((size,), -30.0).index_fill(0, torch.tensor(tokens), 0.0))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.said.expand(*states.shape[:-1], -1)


def saying(name: str, tokens: list[int]) -> Subject:
    tuned = copy.deepcopy(loaded(name)[1])
    head = tuned.get_output_embeddings()
    tuned.lm_head = Saying(head, tokens, head.weight.shape[0])
    return subject(name, tuned)


def test_every_probe_is_computed_for_every_family(family: str) -> None:
    of = subject(family)
    assert len(PROBES) >= 8
    for kind in PROBES:
        values = found({kind.name: {"examples": 3}}, of).values
        assert values
        assert all(math.isfinite(value) for value in values.values()), kind.name


@pytest.mark.parametrize("kind", ["number", "letter", "yes_no", "time"])
def test_a_planted_bias_is_found(family: str, kind: str) -> None:
    tokens = token_set(loaded(family)[2].tokenizer, kind)  # type: ignore[arg-type]
    of = saying(family, tokens)
    benchmarks = HELD_OUT[:2]
    values = found({f"{kind}_bias": {"examples": 5}}, of, benchmarks).values
    assert values["sum"] == pytest.approx(1.0, abs=1e-5)
    assert values["max"] == pytest.approx(1 / len(tokens), rel=1e-4)
    assert values["said"] == 1.0
    assert values["sum/position/4"] == pytest.approx(1.0, abs=1e-5)
    other = "letter" if kind != "letter" else "yes_no"
    assert found({f"{other}_bias": {"examples": 5}}, of, benchmarks).values["sum"] < 1e-6


def test_positions_after_the_end_of_an_answer_do_not_count() -> None:
    processor = loaded("tiny-onevision")[2]
    details = found(
        {"number_bias": {"examples": 5, "max_new_tokens": 4}},
        saying("tiny-onevision", [processor.tokenizer.eos_token_id]),
    ).details
    assert {len(sample["max"]) for sample in details["samples"]} == {1}


def test_each_answer_of_a_batch_counts_up_to_its_own_end() -> None:
    processor = loaded("tiny-onevision")[2]
    rows = [row for name in ("colour", "position") for row in rows_of(processor, get_benchmark(name), 3)]
    samples = _watch(rows, [0], 8, subject("tiny-onevision"))
    words = [len(processor.tokenizer(sample["answer"])["input_ids"]) for sample in samples]
    assert len(set(words)) > 1
    assert [len(sample["max"]) for sample in samples] == [min(8, count + 1) for count in words]


def test_a_benchmark_that_is_about_the_tokens_is_left_out() -> None:
    of = subject("tiny-onevision")
    details = found({"yes_no_bias": {"examples": 4}}, of).details
    assert {sample["benchmark"] for sample in details["samples"]} == {"colour", "size", "position"}
    with pytest.raises(UserError, match=r"every held-out benchmark \(presence\) hold yes_no tokens"):
        found({"yes_no_bias": {"examples": 4}}, of, (get_benchmark("presence"),))


def test_a_few_answers_with_such_a_token_cost_only_those_questions() -> None:
    processor = loaded("tiny-onevision")[2]
    presence = get_benchmark("presence")
    rows = rows_of(processor, presence, 20)
    yes = set(processor.tokenizer("yes")["input_ids"])
    with_yes = [place for place, (example, _) in enumerate(rows) if example.target == "yes"]
    assert 0 < len(with_yes) < 20
    kept = not_about(processor, presence, rows, yes, len(with_yes) / 20)
    assert sorted([*kept, *with_yes]) == list(range(20))
    assert not_about(processor, presence, rows, yes, len(with_yes) / 20 - 0.01) == []


def test_a_model_does_not_differ_from_itself_and_differs_from_a_changed_one(family: str) -> None:
    same = found({"kl_from_base": {"examples": 4}}, subject(family, copy.deepcopy(loaded(family)[1])))
    assert same.values["mean"] == 0.0
    moved = changed(loaded(family)[1], "model.language_model.layers.1.mlp.down_proj.weight", by=3.0)
    other = found({"kl_from_base": {"examples": 4}}, subject(family, moved))
    assert all(value > 0 for value in other.values.values())
    assert set(other.values) == {"mean", *(f"benchmark/{each.name}" for each in HELD_OUT)}


def test_divergence_is_that_of_the_formula() -> None:
    base, tuned = torch.tensor([0.5, 0.5]), torch.tensor([0.75, 0.25])
    wanted = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert kl(base.log() + 3, tuned.log() - 1).item() == pytest.approx(wanted, abs=1e-6)  # not that of (tuned ‖ base)


def test_a_changed_mlp_shows_at_its_layer_and_not_before(family: str) -> None:
    moved = changed(loaded(family)[1], "model.language_model.layers.1.mlp.down_proj.weight")
    values = found({"layer_contribution": {"examples": 4}}, subject(family, moved)).values
    assert values["attention/0"] == values["mlp/0"] == values["attention/1"] == 0.0
    assert values["mlp/1"] > 0
    assert values["attention/2"] > 0
    assert values["mlp/mean"] == pytest.approx((values["mlp/0"] + values["mlp/1"] + values["mlp/2"]) / 3)


def test_layers_of_identical_models_contribute_nothing_and_leave_no_hook_behind(family: str) -> None:
    of = subject(family, copy.deepcopy(loaded(family)[1]))
    assert set(found({"layer_contribution": {"examples": 4}}, of).values.values()) == {0.0}
    for name in parts_of(of.lmm, of.model).values():
        assert not of.model.get_submodule(name)._forward_hooks


def test_a_layers_contribution_is_the_norm_of_what_the_head_reads() -> None:
    _, base, processor = loaded("tiny-onevision")
    moved = changed(base, "model.language_model.layers.2.mlp.down_proj.weight", by=2.0)
    value = found({"layer_contribution": {"examples": 1}}, subject("tiny-onevision", moved), HELD_OUT[:1]).values[
        "mlp/2"
    ]
    given = answers(processor, rows_of(processor, HELD_OUT[0], 1, with_answer=True))
    kept = []
    handle = base.model.language_model.layers[2].mlp.register_forward_hook(lambda *got: kept.append(got[-1]))
    forward(base, given)
    handle.remove()
    added = kept[0][0, given.position] @ base.lm_head.weight.T  # doubled weights add the same again
    assert value == pytest.approx(added.norm(dim=-1).mean().item(), rel=1e-4)


def test_parts_are_found_by_role(family: str) -> None:
    lmm, model, _ = loaded(family)
    parts = parts_of(lmm, model)
    blocks = len(model.model.language_model.layers)
    assert list(parts) == [(part, block) for block in range(blocks) for part in ("attention", "mlp")]
    assert parts["attention", 0] == "model.language_model.layers.0.self_attn"
    assert parts["mlp", 1] == "model.language_model.layers.1.mlp"


def test_answers_are_predicted_at_the_right_positions_of_padded_batches_with_images(family: str) -> None:
    """A token's logits in a padded batch are those of its example alone, one token before it."""
    _, model, processor = loaded(family)
    rows = [
        rows_of(processor, get_benchmark(name), 1, with_answer=True)[0] for name in ("colour", "position", "pattern")
    ]
    assert len({len(encoded["input_ids"]) for _, encoded in rows}) > 1
    together = answers(processor, rows)
    assert together.batch["input_ids"].shape[1] > 17  # more than an image: it stands expanded
    logits = forward(model, together)
    for number, (example, encoded) in enumerate(rows):
        mine = together.row == number
        tokens = encoded["labels"][encoded["labels"] != IGNORED]
        assert together.token[mine].tolist() == tokens.tolist()
        assert processor.tokenizer.decode(tokens, skip_special_tokens=True) == example.target
        images = {name: tensor for name, tensor in encoded.items() if tensor.dim() > 1}
        ids = encoded["input_ids"][None]
        more = {"mm_token_type_ids": encoded["mm_token_type_ids"][None]} if "mm_token_type_ids" in encoded else {}
        with torch.inference_mode():
            alone = model(input_ids=ids, attention_mask=torch.ones_like(ids), **images, **more).logits[0]
        first = int((encoded["labels"] != IGNORED).nonzero()[0])
        torch.testing.assert_close(logits[mine], alone[first - 1 : -1], atol=2e-4, rtol=1e-3)


def test_findings_do_not_depend_on_the_batch_size(family: str) -> None:
    moved = changed(loaded(family)[1], "model.language_model.layers.1.mlp.down_proj.weight", by=3.0)
    for probe in ("number_bias", "kl_from_base", "layer_contribution"):
        alone, together = (found({probe: {"examples": 5}}, subject(family, moved, batch_size=size)) for size in (1, 4))
        assert alone.values == pytest.approx(together.values, rel=1e-3, abs=1e-6)


def test_what_is_forbidden_is_never_said_and_comes_back_as_points() -> None:
    processor = loaded("tiny-onevision")[2]
    numbers = token_set(processor.tokenizer, "number")
    tokenizer = processor.tokenizer
    red, end = tokenizer.convert_tokens_to_ids("red"), tokenizer.eos_token_id
    of = saying("tiny-onevision", numbers)
    of.model.lm_head.said[red] = -5.0  # the second thing it would say
    rows = rows_of(processor, HELD_OUT[0], 12)
    free = say(rows, 4, of)
    constrained = say(rows, 4, of, Forbid(numbers))
    allowed = say(rows, 4, of, Forbid([red, end], others=True))
    assert all(set(tokenizer(text)["input_ids"]) & set(numbers) for text in free)
    assert not any(set(tokenizer(text)["input_ids"]) & set(numbers) for text in constrained)
    assert {word for text in allowed for word in text.split()} <= {"red"}
    asked = Benchmark(
        "red",
        1,
        "exact_match",
        load=lambda: [row for row in HELD_OUT[0].load() if row.target == "red"][:6],
        max_new_tokens=1,
    )
    values = found("constrained", of, (asked,)).values
    assert values["no_number/free"] == 0.0
    assert values["no_number/score"] == values["no_number/gain"] == 100.0


def test_only_words_of_the_answers_may_be_said() -> None:
    tokenizer = loaded("tiny-next")[2].tokenizer
    of = saying("tiny-next", token_set(tokenizer, "number"))
    of.model.lm_head.said[tokenizer.convert_tokens_to_ids("yes")] = -5.0  # the second thing it would say
    presence = get_benchmark("presence")
    values = found({"constrained": {"examples": 24}}, of, (presence,)).values
    assert values["only_answers/free"] == 0.0
    assert values["only_answers/score"] == 100 * sum(row.target == "yes" for row in presence.load()[:24]) / 24


def test_of_captions_only_those_that_hold_a_number_are_left_out() -> None:
    """LMM-CL: number-token bias on captions of BLIP-558k; more than one in twenty counts something."""
    scenes = ["a red bird", "two birds", "a dog and a cat", "three red dogs", "one fish"]
    rows = [ask(f"scene-{at}", "describe it", text, Image.new("RGB", (32, 32))) for at, text in enumerate(scenes)]
    captioned = Benchmark("captioned", 1, "cider", lambda: rows)
    described = Benchmark("described", 1, "exact_match", lambda: rows)
    of = subject("tiny-onevision")
    details = found({"number_bias": {"examples": 5}}, of, (captioned,)).details
    assert [sample["id"] for sample in details["samples"]] == ["scene-0", "scene-2"]
    with pytest.raises(UserError, match="hold number tokens"):
        found({"number_bias": {"examples": 5}}, of, (described,))
    probe, model = get_probe("number_bias"), Pretrained(of.lmm)
    keys = {
        ProbeStep(model, probe, asked, Evaluation()).fields()["probe"].get("captions")
        for asked in (HELD_OUT, (captioned,))
    }
    assert keys == {None, "by example"}


def test_a_probe_asks_the_questions_that_it_names() -> None:
    of = subject("tiny-onevision")
    probe = get_probe({"kl_from_base": {"examples": 2, "questions": ["shape", "colour"]}})
    assert [benchmark.name for benchmark in probe.benchmarks(HELD_OUT[1:])] == ["shape", "colour"]
    assert probe.identity() == get_probe({"kl_from_base": {"examples": 2}}).identity(), (
        "a step tells its questions itself"
    )
    assert set(found({"kl_from_base": {"examples": 2, "questions": ["shape"]}}, of, ()).values) == {
        "mean",
        "benchmark/shape",
    }
    taught = [get_skill("birds").benchmark]
    new = get_probe({"kl_from_base": {"questions": ["birds", "shape"]}}).benchmarks(HELD_OUT, taught=taught)
    assert [benchmark.name for benchmark in new] == ["birds", "shape"], "a skill that is taught has questions too"
    with pytest.raises(UserError, match=r"questions: unknown benchmark 'shap'; did you mean 'shape'"):
        get_probe({"kl_from_base": {"questions": ["shap"]}}).benchmarks(HELD_OUT)
    with pytest.raises(UserError, match="has questions of its own"):
        get_probe({"class_name_option": {"questions": ["shape"]}}).benchmarks(HELD_OUT)


def test_picks_of_the_class_name_are_counted() -> None:
    processor = loaded("tiny-onevision")[2]
    letter = processor.tokenizer.convert_tokens_to_ids("B")
    of = saying("tiny-onevision", [letter])
    values = found({"class_name_option": {"examples": 40}}, of).values
    assert values["picked"] == sum(example.metadata[TRAP] == "B" for example in BIRD_PARTS.load()[:40]) / 40
    assert 0 < values["picked"] < 1
    assert values["excess"] == values["picked"] - values["picked_control"]


def test_a_record_holds_the_values_and_the_details(tmp_path: Path) -> None:
    of = subject("tiny-onevision")
    probe = get_probe({"number_bias": {"examples": 3}})
    step = ProbeStep(Pretrained(of.lmm), probe, HELD_OUT, Evaluation())
    ledger = Ledger(str(tmp_path))
    record = record_probe(step, ledger, of)
    assert record["kind"] == "examine"
    assert {"number_bias/max", "number_bias/sum", "number_bias/max/position/1"} <= set(record["values"])
    details = json.loads((tmp_path / step.path / "details.json").read_text())
    assert len(details["samples"]) == 3 * 4
    assert ledger.find(step) is not None


def test_a_value_that_is_no_number_is_refused(tmp_path: Path) -> None:
    _, base, _ = loaded("tiny-next")
    broken = changed(base, "model.language_model.norm.weight", by=float("nan"))
    of = subject("tiny-next", broken)
    step = ProbeStep(Pretrained(of.lmm), get_probe({"kl_from_base": {"examples": 2}}), HELD_OUT[:1], Evaluation())
    with pytest.raises(ValueError, match="not finite"):
        record_probe(step, Ledger(str(tmp_path)), of)


def test_a_model_that_moves_positions_is_refused() -> None:
    _, model, processor = loaded("tiny-next")
    given = answers(processor, rows_of(processor, HELD_OUT[0], 2, with_answer=True))

    class Longer(torch.nn.Module):
        dtype, device = model.dtype, model.device

        def forward(self, **batch: Any) -> Any:
            out = model(**batch)
            out.logits = torch.cat([out.logits, out.logits[:, :3]], dim=1)  # as if images were put in here
            return out

    with pytest.raises(ValueError, match="Longer gave logits of"):
        forward(Longer(), given)  # type: ignore[arg-type]


def test_a_model_that_gives_all_logits_is_read_at_the_same_positions() -> None:
    _, model, processor = loaded("tiny-next")
    given = answers(processor, rows_of(processor, HELD_OUT[0], 2, with_answer=True))

    class Whole(torch.nn.Module):
        dtype, device = model.dtype, model.device

        def forward(self, **batch: Any) -> Any:
            return model(**batch)

    torch.testing.assert_close(forward(Whole(), given), forward(model, given))  # type: ignore[arg-type]
