"""What the hub refuses, in words that say what to do: gated, missing, a revision that is not there, no network, no room."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path

from lmmcl.errors import UserError, shown
from lmmcl.registry import members

BUSY = (408, 429, 500, 502, 503, 504)
"""HTTP answers after which waiting helps."""

NOBODY = ("ConnectError", "ConnectionError", "ConnectTimeout", "ProxyError")
"""Errors of the HTTP libraries that say that there is nobody: another try seldom helps."""


def is_transient(error: BaseException | None) -> bool:
    """Whether another try may succeed: the network or the hub failed, and did not refuse."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError

    if isinstance(error, HfHubHTTPError):
        return getattr(error.response, "status_code", 0) in BUSY
    if isinstance(error, LocalEntryNotFoundError):  # told in place of what kept the hub from being asked
        return error.__cause__ is not None and is_transient(error.__cause__)
    return isinstance(error, HTTPError | TimeoutError) and type(error).__name__ not in NOBODY


def is_unreachable(error: BaseException | None) -> bool:
    """Whether the hub did not answer at all, or not as a hub does when it works."""
    return is_transient(error) or type(error).__name__ in NOBODY


def refusal(error: BaseException, repo: str, revision: str, place: str) -> UserError:
    """Why files of `repo` at `revision` are not to be had, and what to do about it."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    at = f"{repo} at revision {revision}" if revision else repo
    if isinstance(error, GatedRepoError):
        why = "gated: accept its terms on its page, then run `hf auth login` or set HF_TOKEN to a token of that account"
        return UserError(f"{at}: {why}", file=place)
    if isinstance(error, RepositoryNotFoundError):
        why = f"the hub has no such model, or it is private (set HF_TOKEN){near_ids(repo)}"
        return UserError(f"{repo}: {why}", file=place)
    if isinstance(error, RevisionNotFoundError):
        return UserError(f"{repo}: has no revision {shown(revision)}{_near_revisions(repo, revision)}", file=place)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return no_room(at, place)
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
        why = f"the cache cannot be written ({error.strerror}: {error.filename}); set HF_HOME to a folder of your own"
        return UserError(f"{at}: {why}", file=place)
    return absent(repo, revision, f"not in the local cache, and the hub cannot be reached ({_kind(error)})", place)


def absent(repo: str, revision: str, why: str, place: str) -> UserError:
    """Files that this machine lacks, and how to fetch them where there is a network."""
    option = f" --revision {revision}" if revision else ""
    return UserError(
        f"{repo}{f' at revision {revision}' if revision else ''}: {why}; fetch it where there is a network with "
        f"`hf download {repo}{option}` (HF_HOME names the cache), or name a local save_pretrained directory as the model",
        file=place,
    )


def no_room(what: str, place: str, *, needed: int | None = None, free: int | None = None) -> UserError:
    """The cache has no room for what is to be downloaded."""
    from huggingface_hub import constants

    sizes = f": {needed / 1e9:,.1f} GB are to be downloaded, {(free or 0) / 1e9:,.1f} GB are free" if needed else ""
    return UserError(
        f"{what}: no space left for it in the cache {constants.HF_HUB_CACHE}{sizes}. Free some (`hf cache ls`, `hf cache rm`), or "
        "set HF_HOME to a larger disk; files that were downloaded whole stay in the cache",
        file=place,
    )


def near_ids(repo: str) -> str:
    """`; did you mean …?` with ids like `repo` among the models that have names and those in the cache; empty without one."""
    known = {model.hub for model in members("lmmcl.models", "MODELS").values() if hasattr(model, "hub")} | set(
        cached_ids()
    )
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(repo.lower(), by_lower, n=3, cutoff=0.75)
    return f"; did you mean {' or '.join(by_lower[name] for name in near)}?" if near else ""


def cached_ids() -> Iterable[str]:
    """Ids of the models that this machine's cache holds, at least in part."""
    from huggingface_hub import constants

    folders = Path(constants.HF_HUB_CACHE).glob("models--*--*")
    return [folder.name.removeprefix("models--").replace("--", "/", 1) for folder in folders]


def _near_revisions(repo: str, revision: str) -> str:
    """The branches and tags that there are, the nearest ones first."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    try:
        refs = HfApi().list_repo_refs(repo)
    except (HTTPError, OSError):
        return ""
    names = [ref.name for ref in (*refs.branches, *refs.tags)]
    near = difflib.get_close_matches(revision, names, n=2)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ";"
    return f"{hint} allowed: a commit, or {', '.join(names[:10])}"


def _kind(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error
    return type(cause).__name__
