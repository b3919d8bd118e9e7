"""Print constraints that hold every direct dependency at the lowest release that pyproject.toml allows, for `pip install -c`.

`torch>=2.9,<2.14` becomes `torch==2.9.*`: the first minor release with its fixes. What they depend on is left to pip.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

HELP = ("boto3<1.41.6",)
"""For pip alone, which would try hundreds of releases to find the one that the lowest s3fs goes with."""
EXTRAS = ("test", "s3", "optuna")


def lowest(requirement: Requirement) -> str | None:
    floors = [each.version for each in requirement.specifier if each.operator == ">="]
    if not floors:
        return None
    parts = [*floors[0].split("."), "0"][:2] if "." not in floors[0] else floors[0].split(".")[:2]
    return f"{requirement.name}=={'.'.join(parts)}.*"


def main() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [
        *project["dependencies"],
        *(text for name in EXTRAS for text in project["optional-dependencies"].get(name, ())),
    ]
    for line in sorted({*HELP} | {found for text in texts if (found := lowest(Requirement(text)))}):
        print(line)


main()
