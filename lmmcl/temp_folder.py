"""This user's folder among temporary files, whose name anybody can guess: used only where it is really the user's own."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from lmmcl.errors import UserError


def user_temp_folder() -> Path:
    """`lmmcl-<uid>` in the folder for temporary files (TMPDIR), readable by its owner alone.

    Raises UserError where something else has taken the name: a link that another user has put there would lead what is
    written into a place of that user's choice.
    """
    folder = Path(tempfile.gettempdir(), f"lmmcl-{os.getuid()}")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise UserError(
            "belongs to another user or is a link; remove it, or set TMPDIR to a folder of your own", file=str(folder)
        )
    if status.st_mode & 0o077:
        folder.chmod(0o700)
    return folder
