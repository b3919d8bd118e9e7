"""The hub as data preparation sees it: rows of a split, single files, archives, and images behind URLs.

Everything goes through `datasets` and `huggingface_hub`, whose cache resumes a stopped download where it was and an
offline machine use what it has. Credentials come from their own environment variables (HF_TOKEN) and nowhere else.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.back_off import BackOff
from lmmcl.errors import UserError

if TYPE_CHECKING:
    from lmmcl.tasks.papers.easier.clip_encoder import Encoder

Row = dict[str, Any]
TIMEOUT = 20
"""Seconds for one image behind a URL."""
PAUSES = BackOff(first=2.0, retries=2)
BUSY = (429, 502, 503, 504)
"""HTTP answers after which waiting helps."""


class Hub:
    """Data sets of the hub, or local copies of them.

    `copies` holds copies of data sets as `<owner>/<name>` (`hf download --repo-type dataset --local-dir …` makes them);
    what is there is not requested from the hub. `downloads` keeps images and unpacked archives. `images` is a folder of images for
    data sets that only name theirs.
    """

    def __init__(self, downloads: Path, copies: Path | None = None, images: Path | None = None) -> None:
        self.downloads = downloads
        self.copies = copies
        self.images = images

    def copy_of(self, hub: str) -> Path | None:
        """The folder with a local copy of a data set, if there is one."""
        folder = self.copies / hub if self.copies else None
        return folder if folder is not None and folder.is_dir() else None

    def commit(self, hub: str, revision: str) -> str | None:
        """The commit that a revision stands for now; None for a local copy, and offline."""
        from huggingface_hub import HfApi, is_offline_mode

        if self.copy_of(hub) or is_offline_mode():
            return None
        with told(hub, revision):
            return HfApi().dataset_info(hub, revision=revision, timeout=TIMEOUT).sha

    def rows(self, hub: str, split: str, *, config: str | None = None, revision: str = "main") -> Iterator[Row]:
        """The rows of a split: images as {"bytes", "path"}, class labels as names (and `<column>_id`)."""
        import datasets

        table = self._table(hub, split, config, revision)
        features = {name: undecoded(feature) for name, feature in table.features.items()}
        table = table.cast(datasets.Features(features))
        labels = {name: feature for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)}
        for row in table:
            for name, feature in labels.items():
                row[f"{name}_id"] = row[name]
                row[name] = None if row[name] is None else feature.int2str(row[name])
            yield row

    def labels(self, hub: str, split: str, column: str, *, revision: str = "main") -> list[str]:
        """The names of all classes of a column of class labels; rows are fetched only where nothing else tells them."""
        features = self._features(hub, revision)
        if features is None or column not in features:
            features = self._table(hub, split, None, revision).features
        return list(features[column].names)

    def _features(self, hub: str, revision: str) -> Any:
        """The columns of a data set as its page describes them; None where it does not."""
        import datasets

        copy = self.copy_of(hub)
        with told(hub, revision):
            return datasets.load_dataset_builder(str(copy or hub), revision=None if copy else revision).info.features

    def _table(self, hub: str, split: str, config: str | None, revision: str) -> Any:
        import datasets

        copy = self.copy_of(hub)
        with told(hub, revision):
            return datasets.load_dataset(str(copy or hub), config, split=split, revision=None if copy else revision)

    def file(self, hub: str, path: str, *, revision: str = "main") -> Path:
        """One file of a data set's repository."""
        from huggingface_hub import hf_hub_download

        if (copy := self.copy_of(hub)) is not None:
            if not (copy / path).is_file():
                raise UserError("no such file in the local copy", file=str(copy / path))
            return copy / path
        with told(hub, revision):
            return Path(hf_hub_download(hub, path, repo_type="dataset", revision=revision))

    def archive(self, hub: str, path: str, *, revision: str = "main") -> Path:
        """The folder with the content of a .tar, .tar.gz or .zip file of a repository, unpacked once."""
        file = self.file(hub, path, revision=revision)
        folder = self.downloads / "archives" / hub / f"{path}-{file.stat().st_size}"
        if not folder.is_dir():
            unpacked = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
            unpack(file, unpacked)
            unpacked.replace(folder)
        return folder

    def folder(self, hub: str, fetch: str) -> Path:
        """The local copy of a data set that is not on the hub; `fetch` is the command that makes one."""
        folder = self.copy_of(hub)
        if folder is None:
            raise UserError(
                f"{hub} is not on the hub: put a copy (`{fetch}`) at COPIES/{hub} and name it with `--copies COPIES`"
            )
        return folder

    def named_image(self, path: str, below: Path | None = None) -> bytes | None:
        """The image that a data set names by a path, found below a folder (default: `images`) by the longest ending of it."""
        root = below or self.images
        if root is None:
            raise UserError(f"this data set only names its images ({path}); name their folder with `--images FOLDER`")
        parts = [part for part in Path(path).parts if part not in (".", "..", "/")]
        for start in range(len(parts)):
            file = root.joinpath(*parts[start:])
            if file.is_file():
                return file.read_bytes()
        return None

    def encoder(self) -> Encoder:
        """What tells how alike images and class names are."""
        from lmmcl.tasks.papers.easier.clip_encoder import Clip

        return Clip()

    def image(self, url: str) -> bytes | None:
        """The bytes behind a URL, kept once fetched; None for a link that is dead."""
        kept = self.downloads / "images" / hashlib.sha256(url.encode()).hexdigest()
        if kept.is_file():
            return kept.read_bytes()
        content = fetch(url)
        if content is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            written = kept.with_name(f"{kept.name}.{os.getpid()}.{time.monotonic_ns()}")
            written.write_bytes(content)
            written.replace(kept)
        return content


def undecoded(feature: Any) -> Any:
    """A feature of `datasets` whose images stay the bytes of their files."""
    import datasets

    if isinstance(feature, datasets.Image):
        return datasets.Image(decode=False)
    if isinstance(feature, datasets.List):
        return datasets.List(undecoded(feature.feature))
    if isinstance(feature, dict):
        return {name: undecoded(inner) for name, inner in feature.items()}
    return feature


def fetch(url: str) -> bytes | None:
    """What a web address gives; None when it gives nothing (gone, refused, no answer) after a few tries."""
    if not url.startswith(("http://", "https://")):
        return None
    request = urllib.request.Request(url, headers={"User-Agent": "lmmcl-data-prepare"})

    def read() -> bytes:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return answer.read()

    try:
        return PAUSES.call(read, is_transient=_may_pass)
    except (OSError, ValueError):
        return None


def _may_pass(error: Exception) -> bool:
    """No such host, a time-out, a broken answer, a server that is busy: another try may be answered."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in BUSY
    return isinstance(error, (OSError, ValueError))


def unpack(file: Path, folder: Path) -> None:
    """Unpack an archive into a new folder; nothing can be written outside it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                archive.extractall(folder)
        else:
            with tarfile.open(file) as archive:
                archive.extractall(folder, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"cannot be unpacked: {error}", file=str(file)) from error


@contextmanager
def told(hub: str, revision: str) -> Iterator[None]:
    """Turns what the hub's libraries raise into one message with the remedy."""
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import GatedRepoError, HTTPError

    place = f"data set {hub} at revision {revision}"
    try:
        yield
    except GatedRepoError as error:
        raise UserError("is gated: accept its terms on its page, then set HF_TOKEN", file=place) from error
    except (DatasetsError, HTTPError, OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"it cannot be downloaded ({type(error).__name__}: {reason}); on a machine without network, bring a copy made with "
            f"`hf download {hub} --repo-type dataset --local-dir COPIES/{hub}` and name it with `--copies COPIES`",
            file=place,
        ) from error
