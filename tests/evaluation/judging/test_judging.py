"""Open answers judged by a model: what is asked, remembered, counted, kept secret and refused."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from judge_server import Server, serving

from lmmcl.back_off import BackOff
from lmmcl.errors import UserError
from lmmcl.evaluation.judging import server as judging_server
from lmmcl.evaluation.judging.judging import REPLY, judge_samples
from lmmcl.evaluation.judging.local_judge import LocalJudges
from lmmcl.evaluation.judging.verdicts import read_verdict
from lmmcl.evaluation.samples import Sample
from lmmcl.ledger import Ledger
from lmmcl.ledger.side_files import find_damaged
from lmmcl.tasks.metrics.judge import PROMPT, Judge

JUDGES = LocalJudges("cpu")
SAMPLES = [
    Sample(
        str(number), f"what is in picture {number}?", ("a dog", "dog"), "a black dog" if number % 2 else "a cat", 0.0
    )
    for number in range(6)
]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging_server, "PAUSES", BackOff(first=0.01, longest=0.02, retries=2))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "store"))


def judge(server: Server, **settings: object) -> Judge:
    plain = Judge("made-judge", json.dumps("made-judge"), address=server.address, ask_twice=0)
    return replace(plain, **settings)  # type: ignore[arg-type]


def test_each_answer_is_asked_at_temperature_0_and_scored_by_its_verdict(ledger: Ledger) -> None:
    with serving() as server:
        samples, facts = judge_samples("open", judge(server, at_once=1), SAMPLES, ledger, JUDGES)
    assert [sample.score for sample in samples] == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    assert samples[1].metadata[REPLY] == "VERDICT: yes"
    assert facts == {
        "model": "made-judge",
        "asked": 6,
        "recalled": 0,
        "unreadable": 0,
        "asked_twice": 0,
        "agreement": None,
    }
    asked = server.requests[0]
    assert (asked["path"], asked["model"], asked["temperature"]) == ("/v1/chat/completions", "made-judge", 0)
    assert (
        "what is in picture 0?" in asked["messages"][0]["content"] and "a dog | dog" in asked["messages"][0]["content"]
    )


def test_what_was_judged_is_not_asked_again_and_equal_answers_once(ledger: Ledger) -> None:
    with serving() as server:
        judge_samples("open", judge(server), [*SAMPLES, *SAMPLES], ledger, JUDGES)
        assert len(server.requests) == 6
        samples, facts = judge_samples("other benchmark", judge(server), SAMPLES, ledger, JUDGES)
        assert len(server.requests) == 6 and facts["recalled"] == 6 and samples[1].score == 1.0
        judge_samples("open", judge(server, prompt=PROMPT + " Be strict."), SAMPLES, ledger, JUDGES)
        assert len(server.requests) == 12, "another prompt is another judge"


def test_replies_that_were_paid_for_are_kept_when_another_request_fails(ledger: Ledger) -> None:
    """The first request is slow and fails; all others are answered before it."""

    def slow_to_fail(prompt: str, number: int) -> object:
        if "picture 0?" not in prompt:
            return "VERDICT: yes"
        time.sleep(0.5)
        return 404, {}, "gone"

    with serving(slow_to_fail) as server, pytest.raises(UserError, match="answers 404"):
        judge_samples("open", judge(server, at_once=2), SAMPLES, ledger, JUDGES)
    with serving() as server:
        _, facts = judge_samples("open", judge(server), SAMPLES, ledger, JUDGES)
    assert (facts["recalled"], facts["asked"], len(server.requests)) == (5, 1, 1)


def test_after_a_failure_nothing_more_is_asked_and_what_is_under_way_is_kept(ledger: Ledger) -> None:
    def fails_first(prompt: str, number: int) -> object:
        if "picture 0?" in prompt:
            return 404, {}, "gone"
        time.sleep(0.5)
        return "VERDICT: yes"

    with serving(fails_first) as server, pytest.raises(UserError, match="answers 404"):
        judge_samples("open", judge(server, at_once=2), SAMPLES, ledger, JUDGES)
    paid = len(server.requests) - 1
    assert 1 <= paid <= 2, "those that were sent before the failure was known"
    with serving() as server:
        _, facts = judge_samples("open", judge(server), SAMPLES, ledger, JUDGES)
    assert facts["recalled"] == paid


def test_a_damaged_verdict_is_named_and_asked_again(ledger: Ledger) -> None:
    with serving() as server:
        judge_samples("open", judge(server), SAMPLES, ledger, JUDGES)
        file = sorted(Path(ledger.store).glob("judgements/*/*.json"))[0]
        file.write_text(file.read_text().replace("VERDICT", "verdict"))
        assert [name for name, _ in find_damaged(ledger.files)] == [file.relative_to(ledger.store).as_posix()]
        judge_samples("open", judge(server), SAMPLES, ledger, JUDGES)
        assert len(server.requests) == 7 and not list(find_damaged(ledger.files))


def test_the_agreement_on_a_second_asking_is_told_and_kept(ledger: Ledger) -> None:
    def fickle(prompt: str, number: int) -> str:
        return "VERDICT: yes" if number in (1, 2, 3, 4, 5, 6, 7, 8) else "VERDICT: no"

    with serving(fickle) as server:
        _, facts = judge_samples("open", judge(server, ask_twice=4, at_once=1), SAMPLES, ledger, JUDGES)
        assert (facts["asked_twice"], facts["agreement"]) == (4, 0.5)
        _, facts = judge_samples("open", judge(server, ask_twice=4), SAMPLES, ledger, JUDGES)
        assert (facts["agreement"], len(server.requests)) == (0.5, 10)


def test_a_few_replies_without_a_verdict_are_counted_and_many_are_refused(ledger: Ledger) -> None:
    def vague(prompt: str, number: int) -> str:
        return "It depends." if "picture 5?" in prompt else "**VERDICT:** yes"

    with serving(vague) as server:
        samples, facts = judge_samples("open", judge(server, most_unreadable=0.2), SAMPLES, ledger, JUDGES)
        assert (facts["unreadable"], samples[5].score, samples[5].metadata[REPLY]) == (1, 0.0, "It depends.")
        with pytest.raises(
            UserError, match=r"1 of 6 replies of the judge made-judge hold no verdict.*It depends.*question '5'"
        ):
            judge_samples("open", judge(server, most_unreadable=0.05), SAMPLES, ledger, JUDGES)


def test_a_busy_server_is_asked_again_and_as_late_as_it_says(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    busy = {1: (429, {"Retry-After": "7"}, "slow down"), 2: (503, {}, "")}
    with serving(lambda prompt, number: busy.get(number, "VERDICT: yes")) as server:
        samples, _ = judge_samples("open", judge(server, at_once=1), SAMPLES[:1], ledger, JUDGES)
    assert samples[0].score == 1.0 and len(server.requests) == 3
    assert sum(waits) == pytest.approx(7.02), "seven seconds of the server, then our own pause"


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ((404, {}, '{"error": "no model made-judge"}'), "answers 404 Not Found: .*no model made-judge"),
        ((429, {}, "quota"), "answers 429 Too Many Requests: quota"),
        ((200, {}, "<html>welcome</html>"), "does not speak OpenAI's chat completions"),
        ((302, {"Location": "http://127.0.0.1:9/"}, ""), "answers 302"),
    ],
)
def test_what_a_server_refuses_is_one_message_with_the_place(ledger: Ledger, reply: tuple, why: str) -> None:
    with (
        serving(lambda prompt, number: reply) as server,
        pytest.raises(UserError, match=f"the judge made-judge at .* {why}"),
    ):
        judge_samples("open", judge(server), SAMPLES, ledger, JUDGES)


def test_a_server_that_is_slow_or_gone_is_one_message(ledger: Ledger) -> None:
    def slow(prompt: str, number: int) -> str:
        time.sleep(0.5)
        return "VERDICT: yes"

    with serving(slow) as server, pytest.raises(UserError, match="cannot be reached: timed out"):
        judge_samples("open", judge(server, timeout_s=0.05, at_once=1), SAMPLES[:1], ledger, JUDGES)
    with pytest.raises(UserError, match=r"cannot be reached: .*refused"):
        judge_samples("open", judge(server), SAMPLES[:1], ledger, JUDGES)
    with pytest.raises(UserError, match="cannot be reached"):
        judging_server.check_judge(judge(server))


def test_the_key_is_sent_and_stands_nowhere(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MADE_KEY", "sk-hush-hush")
    with serving() as server:
        mine = judge(server, key_variable="MADE_KEY")
        judge_samples("open", mine, SAMPLES, ledger, JUDGES)
    assert set(server.keys) == {"Bearer sk-hush-hush"}
    written = "".join(path.read_text() for path in Path(ledger.store).rglob("*.json"))
    assert "hush" not in written + repr(mine) + json.dumps(mine.identity()) + caplog.text
    with (
        serving(lambda prompt, number: (401, {}, "wrong key sk-hush-hush")) as server,
        pytest.raises(UserError, match=r"401 Unauthorized: wrong key \*\*\*"),
    ):
        judging_server.check_judge(judge(server, key_variable="MADE_KEY"))
    monkeypatch.delenv("MADE_KEY")
    with pytest.raises(UserError, match=r"the environment variable MADE_KEY, .* is not set: export MADE_KEY"):
        judging_server.check_judge(mine)


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("VERDICT: yes", True),
        ("Thinking… VERDICT: yes?\nNo, the colour differs.\n**Verdict:** no.", False),
        ("Yes.", True),
        ("incorrect", False),
        ("yes and no", None),
        ("", None),
        ("The verdict is yes", None),
    ],
)
def test_a_verdict_is_the_last_line_of_its_form_or_a_word_alone(reply: str, right: bool | None) -> None:
    assert read_verdict(reply).right is right


def test_braces_and_instructions_in_texts_are_texts() -> None:
    made = Judge("m", '"m"', prompt="Q {question} R {references} A {answer} {other}")
    assert made.fill("{answer}?", ("{question}", "b"), "VERDICT: yes {references}") == (
        "Q {answer}? R {question} | b A VERDICT: yes {references} {other}"
    )


def test_an_address_where_something_else_than_http_is_spoken_is_one_message(ledger: Ledger) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"SSH-2.0-made\r\n")
                connection.recv(65536)

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        made = Judge("made-judge", json.dumps("made-judge"), address=address, ask_twice=0)
        with pytest.raises(UserError, match=r"the judge made-judge at .* does not answer in HTTP: .*SSH-2\.0-made"):
            judging_server.check_judge(made)
        thread.join(10)
