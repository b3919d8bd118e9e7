"""The form of a sweep file: what may be written in `sweeps/*.yaml`, checked at the door and published as a JSON schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, create_model

from lmmcl.config.data_entries import LONGEST_NAME, LocalBenchmarkEntry, LocalSkillEntry, Name
from lmmcl.config.draws import Choice, axis_of
from lmmcl.config.orders import Bound, OrderEntry
from lmmcl.config.search_settings import Search
from lmmcl.config.settings import Evaluation, Settings, Training, mapping_of
from lmmcl.errors import shown

BenchmarkName = Annotated[
    str, Field(min_length=1, max_length=LONGEST_NAME, pattern=r"^(lmms_eval/)?[A-Za-z0-9][A-Za-z0-9_.\-]*$")
]
"""A name, or `lmms_eval/<task>`."""


class LmmsEvalEntry(Settings):
    """Your own tasks for lmms-eval."""

    include: str = Field(
        description="folder of task YAML files, as lmms-eval's include_path; relative to the sweep file"
    )


class Benchmarks(Settings):
    """What is asked besides the skills' own benchmarks."""

    held_out: list[BenchmarkName] = Field(
        default_factory=list,
        description="names of benchmarks that ship, of `own`, or `lmms_eval/<task>` with the extra `lmms-eval`",
    )
    own: Annotated[
        dict[Name, LocalBenchmarkEntry],
        mapping_of("benchmark name to entry", "{receipts: {test: receipts/test.jsonl, metric: anls}}"),
    ] = Field(default_factory=dict, description="your own held-out benchmarks, by name")
    allow_overlap: list[BenchmarkName] = Field(
        default_factory=list,
        description="benchmarks (a skill's own by the skill's name) and mixed-in data that may hold rows which a skill teaches; "
        "such a sweep is refused otherwise, and the page says so",
    )
    lmms_eval: LmmsEvalEntry | None = Field(default=None, description="where your own tasks for lmms-eval are")
    tags: Annotated[
        dict[BenchmarkName, Mapping[str, Any]], mapping_of("benchmark name to tags", "{shape: {image: id, text: ood}}")
    ] = Field(
        default_factory=dict,
        description="whether images and texts of a held-out benchmark are like what is taught, for the 2 × 2 in reports: "
        "{benchmark: {image: id|ood, text: id|ood}}, or for one skill {benchmark: {skill: {image: id|ood, text: id|ood}}}",
    )
    wordings: Annotated[
        dict[BenchmarkName, Annotated[list[Any], Field(min_length=1)]],
        mapping_of("benchmark name to list of wordings", '{shape: ["Look closely. {question}"]}'),
    ] = Field(
        default_factory=dict,
        description="other wordings that a held-out benchmark is asked in too: {benchmark: [text with {question}, or "
        "{replace: words, with: words}]}",
    )


def _name_or_mapping(value: Any) -> Any:
    if not isinstance(value, str | Mapping):
        raise ValueError(f"a name, or {{name: {{setting: value}}}}, is expected, not {shown(value)}")
    return value


RecipeEntry = Annotated[
    str | Mapping[Any, Any],
    BeforeValidator(_name_or_mapping),
    Field(
        description="`name`, `a+b` (both), `{lora: {rank: 8}}` (one that ships, settings changed) or `{name: …, train: [role "
        "selectors], adapter: {kind, targets, …}, learning_rates: {role selector: rate}}`"
    ),
]


def _one_or_several(value: Any) -> Any:
    """A mitigation, or a list of those that a trial combines."""
    if value == []:
        raise ValueError("an empty list combines nothing; null stands for no mitigation")
    if isinstance(value, list) and len(value) > 1 and None in value:
        raise ValueError(
            "null stands for no mitigation and cannot be combined with others; remove it from the inner list"
        )
    for entry in value if isinstance(value, list) else [value]:
        _name_or_mapping(entry)
    return value


MitigationEntry = (
    Annotated[
        str | Mapping[Any, Any] | list[str | Mapping[Any, Any]],
        BeforeValidator(_one_or_several),
        Field(description="`name`, `{name: {setting: value}}`, or a list of these, which one trial combines"),
    ]
    | None
)
"""One mitigation, several that one trial combines, or null (or `none`) for none."""

ModelEntry = Annotated[
    Annotated[str, Field(min_length=1)] | Mapping[Any, Any],
    BeforeValidator(_name_or_mapping),
    Field(
        description="a short name (`lmmcl list models`), an id of the hub (`owner/name`, `owner/name@revision`), a directory, "
        "`{adapter: directory, base: model}` or `{checkpoint: trial or key, stage: number, store: store}`"
    ),
]

ProbeEntry = Annotated[str | Mapping[Any, Any], BeforeValidator(_name_or_mapping)]
"""`name` or `{name: {setting: value}}`."""

_SETTING_AXES: dict[str, Any] = {
    name: (axis_of(Annotated[list[field.rebuild_annotation()], Field(min_length=1)]) | None, None)  # type: ignore[misc]
    for name, field in Training.model_fields.items()
}

Grid = create_model(  # every value is a list; the grid is their product
    "Grid",
    __base__=Settings,
    __doc__="A product of axes; every value is a list. Any training setting may be an axis. With `search.optuna`, an axis may "
    "be drawn instead: `{log_uniform: [1.0e-6, 1.0e-4]}`, `{uniform: …}`, `{int_uniform: …}` or `{choice: […]}`.",
    model=(Annotated[list[ModelEntry], Field(min_length=1)], ...),
    recipe=(axis_of(Annotated[list[RecipeEntry], Field(min_length=1)], Choice), ...),
    mitigation=(axis_of(Annotated[list[MitigationEntry], Field(min_length=1)], Choice), [None]),
    order=(Annotated[list[Name], Field(min_length=1)] | None, None),
    seed=(Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1)], [0]),
    **_SETTING_AXES,
)


OF_WHOLE_TRIALS = ("precision",)
"""Training settings that all stages of a trial share: each stage starts from the weights of the one before."""


StageOverride: Any = create_model(  # type: ignore[call-overload]  # what is not given stays as the grid point has it
    "StageOverride",
    __base__=Settings,
    __doc__="What differs from the grid point for one skill, or for one stage: recipe, mitigation, and any training setting but "
    "precision.",
    recipe=(RecipeEntry, None),
    mitigation=(MitigationEntry, None),
    **{
        name: (field.rebuild_annotation(), Field(default=None, description=field.description))
        for name, field in Training.model_fields.items()
        if name not in OF_WHOLE_TRIALS
    },
)


class SweepFile(Settings):
    """One sweep: grids of trials over fixed settings."""

    name: Name
    description: str = ""
    orders: Annotated[dict[Name, OrderEntry], mapping_of("order name to list of skills", "{main: [birds]}")] = Field(
        min_length=1,
        description="skills in their order, or {random: N, of: [skills], seed: 0} for N orders at random, by name",
    )
    bounds: list[Bound] = Field(
        default_factory=list,
        description="what the orders are measured against: `joint` (all skills in one stage), `alone` (each skill from the base)",
    )
    benchmarks: Benchmarks = Benchmarks()
    probes: list[ProbeEntry] = Field(
        default_factory=list,
        description="what is measured inside every checkpoint: `name` or `{name: {setting: value}}`",
    )
    skills: Annotated[
        dict[Name, LocalSkillEntry],
        mapping_of(
            "skill name to entry",
            "{receipts: {train: receipts/train.jsonl, test: receipts/test.jsonl, metric: anls}}",
            ". The skills to teach are listed under orders: {main: [receipts]}",
        ),
    ] = Field(default_factory=dict, description="your own skills; needs no Python")
    models: Annotated[
        dict[str, Mapping[str, Any]],
        mapping_of(
            "model name to settings",
            "{tiny-onevision: {max_pixels: 262144}}",
            ". The models to run are listed under grids: - model: [tiny-onevision]",
        ),
    ] = Field(
        default_factory=dict,
        description="how a model of a grid is asked, by its name there: `{llava-1.5-7b: {square: true}}`; for training, evaluation "
        "and probes alike",
    )
    thinking: bool = Field(
        default=False, description="whether models that can think before they answer do so, in training and evaluation"
    )
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    per_skill: Annotated[
        dict[Name, StageOverride], mapping_of("skill name to settings", "{birds: {learning_rate: 1.0e-5}}")
    ] = Field(
        default_factory=dict,
        description="what differs from the grid point while a skill is taught: {skill: {setting: value}}",
    )
    per_stage: Annotated[
        dict[Annotated[int, Field(ge=1)], StageOverride],
        mapping_of("stage number to settings", "{2: {learning_rate: 1.0e-5}}"),
    ] = Field(
        default_factory=dict,
        description="what differs at a stage, counted from 1: {number: {setting: value}}; takes precedence over per_skill",
    )
    grids: list[Grid] = Field(min_length=1)  # type: ignore[valid-type]
    search: Search = Field(default=Search(), description="which trials are run and how far; not part of any key")
