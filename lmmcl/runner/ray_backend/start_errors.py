"""What keeps Ray from starting or a cluster from being joined, told in one message with a remedy."""

from __future__ import annotations

import os
import re
import tempfile

from lmmcl.errors import UserError

SOCKET = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
"""What Ray puts behind the folder for temporary files; a socket's whole path has at most 107 bytes."""
LONGEST_TEMP = 107 - len(SOCKET)


def check_address(address: str) -> None:
    """Raise UserError for what is not an address of a Ray cluster: with some of them Ray would hang for minutes and then exit."""
    if address in ("local", "auto") or address.startswith("ray://"):
        return
    if "://" in address:
        raise UserError(
            f"{address} is not the address of a Ray cluster but of a web server; to run as a job there: "
            f"`lmmcl submit SWEEP --address {address}`; to join from a node of the cluster: auto",
            place="ray.address",
        )
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(
            f"{address!r} is not an address: host:port is expected, such as {host or address or 'HOST'}:6379; or auto (join the "
            "cluster that runs on this machine), or local (start one). It comes from the cluster file or from RAY_ADDRESS",
            place="ray.address",
        )


def start_error(error: BaseException, address: str) -> UserError | None:
    """The message for what `ray.init` raised; None for an error that says nothing of the surroundings."""
    text = str(error)
    if "AF_UNIX path length" in text:
        return _long_temp_folder()
    if isinstance(error, (ConnectionError, TimeoutError)):
        return _no_answer(address, text)
    if isinstance(error, SystemExit):
        return _no_answer(address, f"Ray exited with code {error.code}")
    if isinstance(error, RuntimeError) and "Version mismatch" in text:
        message = " ".join(text.split())
        return UserError(
            f"the Ray cluster at {address} has other versions than this environment ({message}). Install the cluster's versions "
            "of Ray and Python here, or run from an environment of the cluster (`lmmcl submit`)",
            place="ray.address",
        )
    if "timed out during startup" in text:  # Ray has no class for it
        return UserError(
            "Ray did not start within its own limit of 30 seconds: this machine is too busy. Run the same command "
            "again when it is less busy, or with --inline, in one process without Ray"
        )
    if re.search(
        "address already in use|port .* (is )?(already )?(in use|occupied|not available)", text, re.IGNORECASE
    ):
        return UserError(
            f"Ray needs a port that another program uses ({text.splitlines()[0]}). Unset the RAY_…PORT variables or "
            "free the port; or run with --inline, in one process without Ray",
        )
    if isinstance(error, OSError) and error.filename is not None and _is_at_home(str(error.filename)):
        return UserError(
            f"Ray cannot start: {error.filename}: {error.strerror}. It keeps its access token in the home folder; set HOME to a "
            "folder that you can write"
        )
    if isinstance(error, OSError) and error.filename is not None:
        return UserError(
            f"Ray cannot start: {error.filename}: {error.strerror}. Set RAY_TMPDIR to a folder that you can write "
            f"(at most {LONGEST_TEMP} characters)"
        )
    if isinstance(error, (AssertionError, ValueError)) and address != "local":
        return _no_answer(address, text or type(error).__name__)
    return None


def _is_at_home(name: str) -> bool:
    home = os.path.expanduser("~")  # noqa: PTH111 - as the shell has it: it need not exist
    return os.path.commonpath([os.path.abspath(name), home]) == home  # noqa: PTH100


def _no_answer(address: str, why: str) -> UserError:
    return UserError(
        f"no Ray cluster answers at {address} ({why}); start one (`ray start --head`), "
        "give the address of a running one, or use `local`",
        place="ray.address",
    )


def _long_temp_folder() -> UserError:
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "the folder for temporary files")
    folder = os.environ.get(name) or tempfile.gettempdir()
    return UserError(
        f"Ray cannot start below {folder} ({name}): its sockets need a path of at most 107 bytes. Set RAY_TMPDIR to a folder "
        f"whose path has at most {LONGEST_TEMP} characters, such as /tmp; or run with --inline, without Ray"
    )
