"""What is left of a damaged pack: which of its steps can be believed, and what its directory lists that cannot be found."""

from __future__ import annotations

from lmmcl.ledger.packs.pack_file import directory
from lmmcl.ledger.packs.packed_files import Pack, pack_of
from lmmcl.ledger.record import KINDS, RECORD, WEIGHTS


def salvaged(pack: Pack) -> tuple[set[str], set[str]]:
    """Folders of the steps in a damaged pack, and names of the files whose own header is damaged.

    A name stands twice in a pack, before the file and in the directory at the end; where the two differ, what fits decides.
    """
    listed, paths = directory(pack.content), set(pack.paths())
    if listed is None:
        return {path for path in paths if _is_consistent(pack, path)}, set()
    unlisted = {path for path in paths if f"{path}/{RECORD}" not in listed}
    if any(_is_consistent(pack, path) for path in unlisted):  # it is the directory that is damaged
        return paths, set()
    lost = {name for name in listed - pack.members.keys() if f"{step_of(name)}/{RECORD}" in listed}
    return paths - unlisted, lost


def step_of(name: str) -> str:
    """The folder of the step that a file belongs to."""
    return "/".join(name.split("/")[: 3 if name.startswith(f"{KINDS[0]}/") else 4])


def _is_consistent(pack: Pack, path: str) -> bool:
    """Whether the record in `path` is of that step, and the files that it lists lie beside it."""
    record = pack.record(path)
    if record is None or pack_of(path) != pack.name or not path.endswith(f"-{record['key']}"):
        return False
    small = [name for name in record.files if not name.endswith(WEIGHTS)]
    return not small or any(f"{record.folder}/{name}" in pack.members for name in small)
