"""An exported folder as a repository of the hub, with `huggingface_hub` and the login that it finds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.masking import mask
from lmmcl.steps import Checkpoint
from lmmcl.weights.lora import ADAPTER_CONFIG

ORIGIN = "lmmcl.json"
AGAIN = "run the same command again: files that have arrived are not sent again"


@dataclass(frozen=True)
class Pushed:
    """Where a folder is now; `is_private` is what the hub says of the repository."""

    url: str
    revision: str
    is_private: bool


def check_push(repository: str) -> None:
    """Raise UserError, before anything is written, for a name that the hub does not take, or without a login."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"--push {repository}: {error}") from error
    if repository.count("/") != 1:
        raise UserError(f"--push {repository}: write it as OWNER/NAME")
    if constants.HF_HUB_OFFLINE:
        raise UserError("--push needs the hub, and HF_HUB_OFFLINE is set; unset it, or leave --push out")
    if get_token() is None:
        raise UserError(
            "--push needs a Hugging Face token with permission to write: run `hf auth login`, or set HF_TOKEN"
        )


def is_export_of(folder: Path, step: Checkpoint, ledger: Ledger, *, adapter: bool) -> bool:
    """Whether `folder` holds this very export, complete: what a push that was interrupted continues from."""
    if not (folder / ORIGIN).is_file() or (folder / ADAPTER_CONFIG).is_file() is not adapter:
        return False
    try:
        origin = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except ValueError:
        return False
    if not adapter:
        return isinstance(origin, dict) and origin.get("key") == step.key
    with ledger.opened(step.path, "step.json") as file:
        return bool(origin == json.loads(file.read_text(encoding="utf-8")))


def push(folder: Path, repository: str, *, message: str, public: bool) -> Pushed:
    """Send a folder, and make the repository where there is none: private unless `public`. One that is there stays as it is.

    Raises UserError when the hub refuses, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # the second: httpx's, or httpx2's from 2.0 on

    hub = HfApi()
    try:
        hub.create_repo(repository, private=not public, exist_ok=True)
        commit = hub.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
        private = bool(hub.model_info(repository).private)
    except HfHubHTTPError as error:
        raise UserError(f"the hub refused to take {repository}: {_refusal(error)}") from error
    except ValueError as error:  # the card's metadata: somebody edited them
        raise UserError(f"{mask(str(error)).strip()}", file=str(folder / "README.md")) from error
    except (
        HTTPError,
        OSError,
        RuntimeError,
    ) as error:  # a file that did not arrive is a RuntimeError of the hub's client
        why = error.__cause__ or error
        raise UserError(f"pushing to {repository} was interrupted ({_reason(why)}); {AGAIN}") from error
    return Pushed(f"{hub.endpoint}/{repository}", commit.oid, private)


def _refusal(error: Exception) -> str:
    """What the hub answered, and what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return f"{_reason(error)}. The token needs permission to write there: `hf auth login`, or HF_TOKEN"
    return f"{_reason(error)}; {AGAIN}" if status is None or status >= 500 else _reason(error)


def _reason(error: BaseException) -> str:
    words = str(getattr(error, "server_message", None) or error).strip() or type(error).__name__
    return mask(words.splitlines()[0].rstrip("."))
