"""Files of one model of the hub at one commit: those in this machine's cache, and the way to fetch the others.

`huggingface_hub` downloads, so that a connection which broke off is resumed, several processes of one machine (or of several that
share the cache) download a file once, and HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they always mean. A
process that was killed leaves whole files; one that was half there begins again.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from lmmcl.back_off import BackOff
from lmmcl.errors import UserError
from lmmcl.models.model_folder import ADAPTER, CONFIG, GENERATION, INDEX, PROCESSOR_FILES, WEIGHTS
from lmmcl.models.sources.hub_errors import absent, is_transient, is_unreachable, no_room, refusal
from lmmcl.tasks.files.digest import DigestCache

log = logging.getLogger("lmmcl")
T = TypeVar("T")

PROCESSOR = ("processor_config.json", "preprocessor_config.json")
DESCRIPTION = (CONFIG, "config.*.json", GENERATION, "*.safetensors.index.json", ADAPTER, *PROCESSOR_FILES)
"""All files but the weights, as patterns: what a plan needs of a model."""
COMMIT = re.compile(r"[0-9a-f]{40}")
AGAIN = BackOff(first=1.0, longest=20.0, retries=3)
"""Beside the tries that huggingface_hub makes within one download."""


@dataclass(frozen=True)
class HubFiles:
    """The files of `repo` at `commit`; `place` is how messages call the model."""

    repo: str
    commit: str
    place: str

    def cached(self, name: str) -> Path | None:
        """One file in the local cache, or None when it is not there."""
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(self.repo, name, revision=self.commit)
        return Path(path) if isinstance(path, str) else None

    def folder(self) -> Path:
        """The folder with all files but the weights, which are fetched where they are missing.

        What is in the cache is enough where the hub cannot be asked. Raises UserError where there is nothing.
        """
        return _description(self)

    def fetch(self) -> Path:
        """The folder with all files, weights too; raises UserError that says why they are not to be had."""
        folder = self.folder()
        if missing := [name for name in self.weights() if self.cached(name) is None]:
            self._check_room(missing)
            log.info("%s: downloading %s", self.place, ", ".join(missing))
            self._download(missing)
            if still := [name for name in missing if self.cached(name) is None]:
                raise UserError(
                    f"{self.repo} has no {', '.join(still)} at revision {self.commit}; only safetensors weights are loaded",
                    file=self.place,
                )
        return folder

    def weights(self) -> list[str]:
        """Names of the files with the weights, by what the cache holds of the description."""
        config, index = self.cached(CONFIG), self.cached(INDEX)
        named = json.loads(config.read_text(encoding="utf-8")).get("transformers_weights") if config else None
        if named and named.endswith(".index.json"):
            index = self.cached(named)
        elif named:
            return [named]
        if index is None:
            return [WEIGHTS]
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))

    def missing(self) -> list[str]:
        """The files that loading needs and the local cache does not hold."""
        missing = [name for name in (CONFIG, *self.weights()) if self.cached(name) is None]
        if not any(self.cached(name) for name in PROCESSOR):
            missing.append(PROCESSOR[1])
        return missing

    def check(self) -> None:
        """Raises UserError unless the files are in the cache or the hub gives them; downloads nothing."""
        missing = self.missing()
        if not missing:
            return
        from huggingface_hub import HfApi, is_offline_mode
        from huggingface_hub.errors import HTTPError  # the HTTP library's own, whichever it is

        if is_offline_mode():
            examples = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            why = f"not in the local cache ({examples}) and HF_HUB_OFFLINE is set"
            raise absent(self.repo, self.commit, why, self.place)
        try:
            HfApi().auth_check(self.repo)
            HfApi().model_info(self.repo, revision=self.commit, timeout=20)
        except (HTTPError, OSError) as error:
            raise refusal(error, self.repo, self.commit, self.place) from error

    def _download(self, patterns: list[str]) -> Path:
        from huggingface_hub import snapshot_download

        return Path(
            asked(
                lambda: snapshot_download(self.repo, revision=self.commit, allow_patterns=patterns),
                self.repo,
                self.commit,
                self.place,
            )
        )

    def _check_room(self, names: list[str]) -> None:
        """Raises UserError where the weights are larger than the room that the cache has left."""
        from huggingface_hub import HfApi, constants, is_offline_mode

        if is_offline_mode():
            return
        infos = asked(
            lambda: HfApi().get_paths_info(self.repo, names, revision=self.commit), self.repo, self.commit, self.place
        )
        needed = sum(getattr(info, "size", 0) for info in infos)
        Path(constants.HF_HUB_CACHE).mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(constants.HF_HUB_CACHE).free
        if needed > free:
            raise no_room(f"{self.repo} at revision {self.commit}", self.place, needed=needed, free=free)


@cache
def _description(files: HubFiles) -> Path:
    """Once a process: the files of a commit do not change. One short question comes first, for a download waits long for nobody."""
    from huggingface_hub import HfApi, is_offline_mode

    repo, commit, place = files.repo, files.commit, files.place
    memo, key = DigestCache(), f"hub description {repo}@{commit}"
    config = files.cached(CONFIG)
    if config is not None and memo.recall(key) == str(config.parent):
        return config.parent
    try:
        if not is_offline_mode():
            asked(lambda: HfApi().model_info(repo, revision=commit, timeout=20), repo, commit, place)
        folder = files._download(list(DESCRIPTION))
    except UserError as error:
        if config is None or not is_unreachable(error.__cause__):
            raise
        log.warning("%s: the hub cannot be reached; what the cache holds of it is used", place)
        return config.parent
    memo.remember(key, str(folder))
    return folder


def asked(request: Callable[[], T], repo: str, revision: str, place: str) -> T:
    """What the hub answers, asked again where it failed for a moment; raises UserError that says why it does not."""
    from huggingface_hub import is_offline_mode
    from huggingface_hub.errors import HTTPError

    def tell(error: Exception, pause: float) -> None:
        log.warning("%s: %s; trying again in %.0f s", repo, type(error).__name__, pause)

    try:
        return AGAIN.call(
            request, is_transient=lambda error: not is_offline_mode() and is_transient(error), on_retry=tell
        )
    except (HTTPError, OSError) as error:
        if is_offline_mode():
            raise absent(repo, revision, "not in the local cache and HF_HUB_OFFLINE is set", place) from error
        raise refusal(error, repo, revision, place) from error


def resolve(repo: str, revision: str, place: str) -> str:
    """The commit that `revision` of `repo` stands for (empty: `main`), which then stays what it means on this machine.

    The hub is asked the first time, and the cache where there is no network. The commit is in the name of every trial and in
    every record; `ID@COMMIT` in the sweep makes it the same on all machines.
    """
    if COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi, constants, is_offline_mode

    memo, key = DigestCache(), f"hub revision {constants.ENDPOINT} {repo} {revision or 'main'}"
    if known := memo.recall(key):
        return known
    cached = HubFiles(repo, revision or "main", place).cached(CONFIG)
    if is_offline_mode():
        if cached is None:
            raise absent(repo, revision, "not in the local cache and HF_HUB_OFFLINE is set", place)
        commit = cached.parent.name
    else:
        try:
            info = asked(lambda: HfApi().model_info(repo, revision=revision or None, timeout=20), repo, revision, place)
            commit = str(info.sha)
        except UserError as error:
            if cached is None or not is_unreachable(error.__cause__):
                raise
            commit = cached.parent.name
    memo.remember(key, commit)
    log.warning("%s: revision %s is commit %s; write %s@%s to pin it", place, revision or "main", commit, repo, commit)
    return commit
