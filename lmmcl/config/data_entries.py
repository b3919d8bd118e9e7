"""The form of your own data in a sweep file: files, folders, data sets of the hub, with columns, weights and splits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from lmmcl.config.settings import Precision, Settings
from lmmcl.masking import has_secrets, mask
from lmmcl.tasks.files.local_files import ANSWER_TOKENS

JUDGED = ("{references}", "{answer}")
"""What a judge's prompt holds; it may do without the question."""
LONGEST_NAME = 100
"""A file system takes 255 bytes for a folder's name, and a step's holds several names."""
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*$")]
"""Names become parts of paths and of metric names, so they hold letters, digits and `_ . -` only."""

Text = Annotated[str, Field(min_length=1)]
ColumnsEntry = dict[Text, Text | Annotated[list[Text], Field(min_length=1)]] | None
COLUMNS = (
    "which column is which, as {ours: theirs}: image, question, answer, answers, input, caption, label, system, messages, "
    "conversations, id; several columns of images as a list. The usual layouts need none"
)
QUESTION = "the question for rows that hold none (images with captions or classes)"


class SourceEntry(Settings):
    """One source of rows: a file or folder, or a data set of the hub."""

    file: Text | None = Field(
        default=None,
        description="path relative to the sweep file: .json, .jsonl, .parquet, .csv, .tsv, .arrow, .tar, a folder of classes or of "
        "`save_to_disk`; `*` and `?` stand for several files",
    )
    hub: Text | None = Field(default=None, description="a data set of the hub, as owner/name, instead of a file")
    split: Text | None = Field(default=None, description="the split of a data set of the hub, such as train")
    config: Text | None = Field(default=None, description="the configuration of a data set of the hub that has several")
    revision: Text | None = Field(
        default=None, description="a commit, tag or branch of a data set of the hub; the commit enters the key"
    )
    images: Text | None = Field(default=None, description="folder that image names are relative to")
    columns: ColumnsEntry = Field(default=None, description=COLUMNS)
    question: Text | None = Field(default=None, description=QUESTION)
    weight: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="how often each row counts in an epoch: 2 twice, 0.5 a fixed half of the rows",
    )

    @model_validator(mode="after")
    def _is_one(self) -> SourceEntry:
        if (self.file is None) == (self.hub is None):
            raise ValueError("one of file and hub is expected" + (", not both" if self.file else ""))
        if self.hub is not None and self.split is None:
            raise ValueError("split is missing: which part of the data set of the hub, such as train")
        for name in ("split", "config", "revision"):
            if self.hub is None and getattr(self, name) is not None:
                raise ValueError(f"{name} is of data sets of the hub; a file has none")
        if self.hub is not None and self.images is not None:
            raise ValueError("images is a folder for files; images of a hub data set are fetched with it")
        return self


class SplitEntry(Settings):
    """A part of the training data, held back for the test."""

    share: float = Field(gt=0, lt=1, description="share of the training rows that are asked and not taught")
    by: Text | None = Field(
        default=None,
        description="what stays together: `picture` (rows that show the same picture) or a column; by default single rows",
    )
    seed: int = Field(default=0, ge=0, description="another seed holds back other rows")


def _sources(value: Any) -> Any:
    """One source, or a list of them; a text is a file."""
    several = value if isinstance(value, list) else [value]
    return [{"file": source} if isinstance(source, str) else source for source in several]


def _test(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"share": value}
    is_split = isinstance(value, SplitEntry) or (isinstance(value, Mapping) and {"share", "by", "seed"} & value.keys())
    return value if is_split else _sources(value)


def _kind(value: Any) -> str:
    return "<sources>" if isinstance(value, list | tuple) else "<split>"


_OneOrSeveral = str | SourceEntry | list[str | SourceEntry]
Sources = Annotated[
    Annotated[list[SourceEntry], Field(min_length=1)],
    BeforeValidator(_sources, json_schema_input_type=_OneOrSeveral),
]
SourcesOrSplit = Annotated[
    Annotated[SplitEntry, Tag("<split>")] | Annotated[list[SourceEntry], Field(min_length=1), Tag("<sources>")],
    Discriminator(_kind),
    BeforeValidator(_test, json_schema_input_type=_OneOrSeveral | float | SplitEntry),
]


_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""Names of environment variables."""


class JudgeEntry(Settings):
    """A model that judges open answers: it reads question, references and answer, and says whether the answer is right."""

    model: Text = Field(
        description="the judge: a directory of a language model or an LMM, a short name or an id of the hub; with `address` the "
        "name by which that server knows it"
    )
    address: Text | None = Field(
        default=None,
        description="of a server that speaks OpenAI's chat completions, such as http://127.0.0.1:8000/v1; enters no key",
    )
    key_variable: Text | None = Field(
        default=None,
        description="the environment variable that holds the server's key, such as OPENAI_API_KEY; enters no key",
    )
    prompt: Text | None = Field(
        default=None,
        description="with {question}, {references} and {answer}; the reply is to hold `VERDICT: yes` or `VERDICT: no`, or be one "
        "of these words. Default: a prompt in English",
    )
    max_new_tokens: int = Field(default=32, gt=0, le=4096, description="tokens that a reply may have")
    precision: Precision = Field(default="bf16", description="of a local judge's weights and arithmetic")
    ask_twice: int = Field(
        default=20,
        ge=0,
        description="answers that are judged a second time, to report how often the verdict is the same",
    )
    most_unreadable: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="share of replies without a verdict (they score 0) beyond which the step fails",
    )
    at_once: int = Field(default=8, ge=1, le=256, description="requests to a server at a time")
    timeout_s: float = Field(default=120, gt=0, description="seconds that a server may take for a reply")

    @model_validator(mode="after")
    def _is_whole(self) -> JudgeEntry:
        if self.prompt is not None and (lacking := [place for place in JUDGED if place not in self.prompt]):
            raise ValueError(f"prompt lacks {' and '.join(lacking)}")
        if self.address is None and self.key_variable is not None:
            raise ValueError(
                "key_variable has an effect only with address; add the server's address, or remove key_variable"
            )
        if self.key_variable is not None and not _VARIABLE.fullmatch(self.key_variable):
            raise ValueError(
                "key_variable is the name of an environment variable, such as OPENAI_API_KEY, and not the key itself"
            )
        if self.address is not None:
            if not _is_http(self.address):
                raise ValueError(f"address is a URL such as http://127.0.0.1:8000/v1, not {mask(self.address)!r}")
            if has_secrets(self.address):
                raise ValueError(
                    f"address must not hold a password or key ({mask(self.address)}); put it into an environment variable, and "
                    "name that: key_variable: OPENAI_API_KEY"
                )
        return self


def _is_http(address: str) -> bool:
    """Whether `address` is a URL of a server that HTTP can be spoken with: its port is a number, and nothing in it is a blank."""
    try:
        parts = urlsplit(address)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and address.isprintable()
            and " " not in address
        )
    except ValueError:  # a port that is none
        return False


class _JudgeMetric(Settings):
    """A judge in the place of a metric."""

    judge: JudgeEntry


def _metric_kind(value: Any) -> str:
    return "<judge>" if isinstance(value, Mapping | _JudgeMetric) else "<name>"


MetricEntry = Annotated[
    Annotated[str, Tag("<name>")] | Annotated[_JudgeMetric, Tag("<judge>")], Discriminator(_metric_kind)
]


class _OwnData(Settings):
    images: Text | None = Field(
        default=None, description="folder that image names are relative to; default that of the file"
    )
    columns: ColumnsEntry = Field(default=None, description=COLUMNS)
    question: Text | None = Field(default=None, description=QUESTION)
    metric: MetricEntry = Field(
        description="how answers are scored: a name (`lmmcl list metrics`), or `{judge: {model: …}}` for open answers"
    )
    max_new_tokens: int = Field(default=ANSWER_TOKENS, gt=0, description="tokens that an answer may have")


class LocalBenchmarkEntry(_OwnData):
    """A held-out benchmark of your own data."""

    test: Sources = Field(
        description="a file or folder relative to the sweep file, `{hub: owner/name, split: test}`, or a list of such"
    )


class LocalSkillEntry(_OwnData):
    """A skill of your own data."""

    train: Sources = Field(
        description="training rows: a file or folder relative to the sweep file, `{hub: owner/name, split: train}`, or a list of "
        "such, each perhaps with a `weight`"
    )
    test: SourcesOrSplit = Field(
        description="test rows in the same forms, or the share of the training rows that is held back: 0.1, or "
        "`{share: 0.1, by: picture, seed: 0}`"
    )
