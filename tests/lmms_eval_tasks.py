"""A folder of tasks for lmms-eval as a user would write one: YAML, functions, and a parquet file with images beside them.

The questions are those of the held-out benchmark `colour` in its own words, so that what a model says here and there is the same.
"""

from __future__ import annotations

from pathlib import Path

from lmmcl.tasks import get_benchmark
from lmmcl.tasks.examples import IMAGE_PLACEHOLDER

UTILS = """
def doc_to_visual(doc):
    return [doc["image"].convert("RGB")]

def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return lmms_eval_specific_kwargs["pre_prompt"] + doc["question"]

def process_results(doc, results):
    right = results[0].lower() == doc["answer"]
    return {
        "right": {"id": doc["id"], "score": float(right), "of": doc["answer"]},
        "by_answer": {"score": float(right), "of": doc["answer"]},
        "points": 100.0 * right,
    }

def aggregate(results):
    print("printed once for all, not once for each")
    return round(sum(each["score"] for each in results) / len(results), 5)

def mean_of_means(results):
    groups = {}
    for each in results:
        groups.setdefault(each["of"], []).append(each["score"])
    return sum(sum(group) / len(group) for group in groups.values()) / len(groups)
"""

BASE = """
dataset_path: parquet
dataset_kwargs: {data_files: {test: rows.parquet}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: answer
generation_kwargs: {max_new_tokens: 4, do_sample: false}
lmms_eval_specific_kwargs: {default: {pre_prompt: ""}}
metadata: [{version: 0.0}]
"""

OWN = """
include: _base
process_results: !function utils.process_results
metric_list:
  - {metric: METRIC, aggregation: AGGREGATION, higher_is_better: true}
"""
TASKS = {
    "own_colour": ("right", "!function utils.aggregate"),
    "own_by_answer": ("by_answer", "!function utils.mean_of_means"),
    "own_points": ("points", "mean"),
}


def write_tasks(folder: Path) -> Path:
    """The YAML and Python of all tasks, without their data: `own_exact` is scored by lmms-eval's own metric; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "utils.py").write_text(UTILS)
    (folder / "_base").write_text(BASE)
    for name, (metric, aggregation) in TASKS.items():
        text = OWN.replace("METRIC", metric).replace("AGGREGATION", aggregation)
        (folder / f"{name}.yaml").write_text(f"task: {name}\n{text}")
    exact = "metric_list:\n  - {metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true}\n"
    (folder / "own_exact.yaml").write_text(f'include: _base\ntask: "own_exact"\n{exact}')
    return folder


def write_rows(folder: Path, count: int) -> None:
    """The first `count` questions of `colour` as the tasks' data set."""
    from datasets import Dataset, Features, Image, Value

    examples = get_benchmark("colour").load()[:count]
    rows = {
        "id": [example.id for example in examples],
        "image": [example.open_images()[0] for example in examples],
        "question": [example.prompt[-1].content.replace(IMAGE_PLACEHOLDER, "").strip() for example in examples],
        "answer": [example.target for example in examples],
    }
    text = Value("string")
    features = Features({"id": text, "image": Image(), "question": text, "answer": text})
    Dataset.from_dict(rows, features=features).to_parquet(folder / "rows.parquet")


def write_mmmu(folder: Path) -> None:
    """A task `own_mmmu`: that of lmms-eval called mmmu_val, with drawn rows in MMMU's own schema."""
    from datasets import Dataset, Features, Image, Value

    from lmmcl.tasks.lmms_eval.benchmark import installed

    examples = get_benchmark("colour").load()[:8]
    pictures = [example.open_images()[0] for example in examples]
    text, count = Value("string"), len(examples)
    rows = {
        "id": [f"validation_{('Art', 'Math')[number % 2]}_{number + 1}" for number in range(count)],
        "question": [f"Look at <image 1>{' and <image 2>' * (n % 2)}. Which colour is it?" for n in range(count)],
        "options": [str(["red", "white", "blue", "green"]) if n % 4 else "[]" for n in range(count)],
        "question_type": ["multiple-choice" if n % 4 else "open" for n in range(count)],
        "answer": ["ABCD"[n % 4] if n % 4 else examples[n].target for n in range(count)],
        **{f"image_{place}": pictures if place < 3 else [None] * count for place in range(1, 8)},
    }
    images = {f"image_{place}": Image() for place in range(1, 8)}
    words = dict.fromkeys(("id", "question", "options", "question_type", "answer"), text)
    Dataset.from_dict(rows, features=Features(words | images)).to_parquet(folder / "mmmu.parquet")
    base = installed().tasks / "mmmu" / "mmmu_val.yaml"
    (folder / "own_mmmu.yaml").write_text(
        f"include: {base}\ntask: own_mmmu\ntag: []\ndataset_path: parquet\n"
        "dataset_kwargs: {data_files: {validation: mmmu.parquet}}\ngeneration_kwargs: {max_new_tokens: 4}\n"
    )
