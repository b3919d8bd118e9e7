"""How much faster batched evaluation is than one question at a time (what the field's evaluators do for these models).

    pytest -m bench -s tests/bench/evaluate.py        or        python tests/bench/evaluate.py

Baseline: batch size 1 on the same warm model, encodings in memory in both cases. Goal: at least 5 times as fast, with
the same answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from lmmcl.evaluation.evaluate import score_benchmarks
from lmmcl.models import get_model
from lmmcl.tasks import benchmark_names, get_benchmark, get_skill, skill_names
from lmmcl.tasks.hub.hub_data import HubBenchmark

QUESTIONS = 100
BATCH = 128
GOAL = 5.0


def _seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    result = work()
    return time.process_time() - begun, result


def measure() -> dict[str, float]:
    """CPU seconds of each way, their ratio, and questions a second when batched."""
    lmm = get_model("tiny-onevision")
    model, processor = lmm.load_model(), lmm.load_processor()
    benchmarks = [get_benchmark(name) for name in benchmark_names()]
    benchmarks += [get_skill(name).benchmark for name in skill_names()]
    benchmarks = [benchmark for benchmark in benchmarks if not isinstance(benchmark, HubBenchmark)]

    def ask(batch_size: int) -> Any:
        return score_benchmarks(model, processor, benchmarks, limit=QUESTIONS, batch_size=batch_size)

    cold, _ = _seconds(lambda: ask(BATCH))
    batched, answers = _seconds(lambda: ask(BATCH))
    alone, same = _seconds(lambda: ask(1))
    assert answers == same, "the batch size changed an answer"
    questions = sum(map(len, answers.values()))
    return {
        "cold": cold,
        "batched": batched,
        "one by one": alone,
        "ratio": alone / batched,
        "per second": questions / batched,
    }


@pytest.mark.bench
def test_batched_evaluation_is_at_least_five_times_as_fast_as_one_by_one() -> None:
    found = measure()
    print("\n" + "  ".join(f"{name}: {value:.2f}" for name, value in found.items()))
    assert found["ratio"] >= GOAL


if __name__ == "__main__":
    print("  ".join(f"{name}: {value:.2f}" for name, value in measure().items()))
