"""The version of the package and the commit of its source, on the ground so that every room can name them."""

from __future__ import annotations

__version__ = "0.1.0"


def git(*words: str) -> str | None:
    """What git answers in the folder of this package; None where it refuses, is not installed, or takes more than 5 seconds."""
    import subprocess
    from pathlib import Path

    here = str(Path(__file__).parent)
    try:
        done = subprocess.run(["git", "-C", here, *words], capture_output=True, text=True, check=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def source_commit() -> str | None:
    """The commit of the repository that holds this package's source.

    None for an installed package, also where it lies inside a repository of somebody else's, as a virtual environment may.
    """
    return git("rev-parse", "HEAD") if git("ls-files", "--error-unmatch", "version.py") else None
