"""A judge named in a sweep file: how it is written, what of it enters keys, and what a record and a report say of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from judge_server import serving
from own_data import write_receipts

from lmmcl.config.cluster import Cluster
from lmmcl.config.sweep import Sweep, load_sweep
from lmmcl.errors import UserError
from lmmcl.evaluation.judging.local_judge import LocalJudges
from lmmcl.ledger import Ledger
from lmmcl.reports.collect import collect
from lmmcl.runner.inline import inline_scheduler
from lmmcl.runner.preflight import check_rows
from lmmcl.steps import Evaluate
from lmmcl.tasks.metrics.judge import Judge, LocalJudge


def sweep_with(folder: Path, judge: object) -> Sweep:
    """A sweep whose held-out benchmark is scored as `judge` says."""
    if not (folder / "data" / "test.json").is_file():
        write_receipts(folder / "data", 4, name="test.json", seed=1)
    text = {
        "name": "judged",
        "orders": {"main": ["counting"]},
        "benchmarks": {"held_out": ["prices"], "own": {"prices": {"test": "data/test.json", "metric": judge}}},
        "training": {"epochs": 1, "examples": 8, "global_batch_size": 8, "precision": "fp32"},
        "evaluation": {"precision": "fp32", "limit": 4},
        "grids": [{"model": ["tiny-onevision"], "recipe": ["sa_proj"], "learning_rate": [1e-3]}],
    }
    path = folder / "judged.yaml"
    path.write_text(yaml.safe_dump(text))
    return load_sweep(path)


def asked(sweep: Sweep) -> Evaluate:
    """The step that asks the benchmark of the pre-trained model."""
    return next(step for step in sweep.trials[0].stages[0].evaluations if step.label == "prices")


SERVER = {"model": "made-judge", "address": "http://127.0.0.1:9/v1"}


def test_the_key_holds_who_judges_and_how_and_not_where(tmp_path: Path) -> None:
    def key(**settings: object) -> str:
        return asked(sweep_with(tmp_path, {"judge": {**SERVER, **settings}})).key

    same = [
        key(address="https://else.where/v1"),
        key(key_variable="ANY_KEY", ask_twice=3, at_once=2, timeout_s=5, most_unreadable=0.5),
    ]
    assert set(same) == {key()}
    other = [key(model="another"), key(prompt="{references} {answer}"), key(max_new_tokens=64)]
    metric = asked(sweep_with(tmp_path, "exact_match")).key
    assert len({key(), metric, *other}) == 5
    fields = asked(sweep_with(tmp_path, {"judge": SERVER})).fields()["benchmark"]["metric"]
    assert fields["name"] == "judge" and fields["judge"]["temperature"] == 0 and "127.0.0.1" not in json.dumps(fields)


def test_a_local_judge_is_known_by_its_model_and_precision(tmp_path: Path) -> None:
    keys = {
        asked(sweep_with(tmp_path, {"judge": {"model": model, "precision": precision}})).key
        for model, precision in (("tiny-onevision", "fp32"), ("tiny-next", "fp32"), ("tiny-onevision", "bf16"))
    }
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("judge", "why"),
    [
        ({"judge": {**SERVER, "prompt": "is {answer} right?"}}, r"prompt lacks \{references\}"),
        (
            {"judge": {**SERVER, "address": "http://me:secret@host/v1"}},
            r"address must not hold a password or key \(http://\*\*\*@host/v1\)",
        ),
        ({"judge": {**SERVER, "address": "host:8000"}}, "address is a URL"),
        ({"judge": {**SERVER, "address": "http://host:eight/v1"}}, "address is a URL .*not 'http://host:eight/v1'"),
        ({"judge": {**SERVER, "address": "http://host:99999/v1"}}, "address is a URL"),
        ({"judge": {**SERVER, "address": "http://my host/v1"}}, "address is a URL"),
        ({"judge": {**SERVER, "address": "http:///v1"}}, "address is a URL"),
        ({"judge": {**SERVER, "key_variable": "sk-12"}}, "key_variable"),
        (
            {"judge": {"model": "tiny-onevision", "key_variable": "A_KEY"}},
            "key_variable has an effect only with address",
        ),
        ({"judge": {"address": "http://127.0.0.1:9/v1"}}, "judge.model: is missing"),
        ({"jugde": SERVER}, "did you mean 'judge'"),
        ({"judge": {"model": "no-such-model"}}, "unknown model 'no-such-model'"),
        ("judge", "unknown metric 'judge'"),
    ],
)
def test_a_wrong_judge_is_refused_with_its_place(tmp_path: Path, judge: object, why: str) -> None:
    with pytest.raises(UserError, match=why) as caught:
        sweep_with(tmp_path, judge)
    assert "benchmarks.own.prices" in str(caught.value) and "secret" not in str(caught.value)


def test_a_step_is_scored_by_the_judge_and_its_record_and_the_report_say_so(tmp_path: Path) -> None:
    with serving(lambda prompt, number: "VERDICT: yes") as server:
        sweep = sweep_with(tmp_path, {"judge": {**SERVER, "address": server.address, "ask_twice": 2}})
        ledger, step = Ledger(str(tmp_path / "store")), asked(sweep)
        check_rows([step], ledger, lambda note: None)
        assert len(server.requests) == 1, "the judge is tried before anything is spent"
        (record,) = inline_scheduler(ledger, Cluster(), lambda key, note: None).ensure_all([step])
    assert record["score"] == 100.0 and record["sample_scores"] == [1.0] * 4
    assert (record["judge"]["model"], record["judge"]["asked_twice"], record["judge"]["agreement"]) == (
        "made-judge",
        2,
        1.0,
    )
    notes = collect(sweep, ledger).notes
    assert (
        "prices is judged by made-judge: 100.0% of 2 answers that were judged twice got the same verdict; 0 of 4 replies held no verdict"
        in notes
    )
    with pytest.raises(UserError, match="cannot be reached"):
        check_rows(
            [asked(sweep_with(tmp_path, {"judge": {**SERVER, "model": "other", "address": server.address}}))],
            ledger,
            print,
        )


def test_the_embedded_model_judges_in_this_process(tmp_path: Path) -> None:
    prompt = "how many ? {references} {answer}"
    sweep = sweep_with(
        tmp_path, {"judge": {"model": "tiny-onevision", "precision": "fp32", "prompt": prompt, "ask_twice": 2}}
    )
    judge = asked(sweep).benchmark.judge
    assert judge is not None and judge.local is not None
    replies: dict[str, str] = {}
    LocalJudges("cpu").ask(judge, ["how many ? two two", "how many ? red two"], replies.__setitem__)
    assert len(replies) == 2 and all(replies.values())
    with pytest.raises(UserError, match="replies of the judge tiny-onevision hold no verdict"):
        inline_scheduler(Ledger(str(tmp_path / "store")), Cluster(), lambda key, note: None).ensure_all([asked(sweep)])


def test_a_folder_of_a_language_model_without_images_judges(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path / "text-judge"
    letters = {letter: number for number, letter in enumerate(["<e>", *map(chr, range(32, 127))])}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="<e>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<e>", unk_token="<e>").save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=128,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    judge = asked(
        sweep_with(tmp_path, {"judge": {"model": "text-judge", "precision": "fp32", "max_new_tokens": 4}})
    ).benchmark.judge
    assert isinstance(judge, Judge) and isinstance(judge.local, LocalJudge) and judge.label.startswith("text-judge-")
    first: dict[str, str] = {}
    second: dict[str, str] = {}
    for replies in (first, second):
        LocalJudges("cpu").ask(judge, ["is it red?", "a longer question, is it?"], replies.__setitem__)
    assert first == second and len(first) == 2
    assert judge.local.model.parameters == sum(p.numel() for p in Qwen2ForCausalLM(config).parameters())
