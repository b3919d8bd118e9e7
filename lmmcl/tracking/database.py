"""Where MLflow keeps a sweep's runs: the default beside the ledger, and a check before anything is spent."""

from __future__ import annotations

import fcntl
import hashlib
import os
import ssl
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lmmcl.errors import UserError
from lmmcl.ledger.store import local_path
from lmmcl.masking import user_info
from lmmcl.temp_folder import user_temp_folder

MLFLOW_VARIABLE = "LMMCL_MLFLOW"
"""The tracking URI where no option names one: a password on a command line is seen by everybody on the machine."""
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SERVERS = ("http", "https")


def default_tracking_uri(store: str | Path) -> str:
    """`sqlite:///<store>/mlflow.db`. Raises UserError when the store is not a local folder: a database file needs one."""
    return sqlite_uri(_local(store) / "mlflow.db")


def default_artifact_location(store: str | Path) -> str:
    """The URI of `<store>/mlflow-artifacts`, absolute, so that every process writes to the same place."""
    return (_local(store) / "mlflow-artifacts").as_uri()


def check_reachable(uri: str, timeout: float = 5.0) -> None:
    """Raise UserError when nothing can be logged to `uri`: asked once, before any training, without importing MLflow.

    A server is asked for `/health`; of a sqlite file the folder must be there or be made; other databases are only
    known when they are used.
    """
    scheme = urlsplit(uri).scheme.split("+")[0]
    if scheme in SERVERS:
        _check_server(uri, timeout)
    elif scheme == "sqlite":
        _check_sqlite(uri)
    elif scheme not in (*DATABASES, "databricks"):
        raise UserError(
            f"MLflow cannot keep runs in {uri!r}; allowed: an http(s) server, or a database such as "
            "sqlite:////absolute/path/mlflow.db (MLflow has given up plain folders)"
        )


def sqlite_file(uri: str) -> Path | None:
    """The file of a `sqlite:///…` URI; None for any other URI and for a database in memory."""
    if not urlsplit(uri).scheme.startswith("sqlite"):
        return None
    path = unquote(uri.split("://", 1)[1].removeprefix("/").split("?")[0])
    return Path(path) if path and path != ":memory:" else None


def sqlite_uri(file: Path) -> str:
    """`sqlite:///…` of a file, with what has a meaning in a URI quoted."""
    path = file.as_posix()
    for character in "%?#":
        path = path.replace(character, f"%{ord(character):02X}")
    return f"sqlite:///{path}"


def with_credentials_apart(uri: str) -> str:
    """A server's URI without `user:password@`, which MLflow gets as its own variables say it: not every part of it reads URIs."""
    bare, user, password = user_info(uri)
    if urlsplit(uri).scheme not in SERVERS or not user:
        return uri
    os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = user, password
    return bare


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """One process of this machine at a time at an MLflow store: for what two must not do at once, such as making its tables.

    Processes of other machines are not held up.
    """
    file = sqlite_file(uri)
    name = hashlib.sha256((str(file.resolve()) if file else uri).encode()).hexdigest()[:12]
    with (user_temp_folder() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


ADDRESS = "correct the address (--mlflow, LMMCL_MLFLOW, or tracking: in the cluster file)"
"""Where a tracking URI comes from, for a person who has to correct it."""


def _local(store: str | Path) -> Path:
    folder = local_path(str(store))
    if folder is None:
        raise UserError(
            f"the store {str(store)!r} is not a local folder, and MLflow's own database needs one; "
            "name a tracking server (--mlflow http://HOST:5000, or tracking: in the cluster file), or do without: --mlflow off"
        )
    return folder.expanduser().resolve()


def _check_sqlite(uri: str) -> None:
    file = sqlite_file(uri)
    if file is None:
        raise UserError(f"MLflow's database {uri!r} names no file; write sqlite:////absolute/path/mlflow.db")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"MLflow's database {uri!r} cannot be created: {error}") from error
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UserError(f"MLflow's database {uri!r} cannot be written to: no permission for {file}")


def _check_server(uri: str, timeout: float) -> None:
    remedy = f"start it (mlflow server --host 0.0.0.0 --port 5000), {ADDRESS}, or run with --mlflow off"
    try:
        ask_server(uri, "/health", timeout)
    except urllib.error.HTTPError as error:
        if error.code == 401:  # it is there; MLflow's client brings the credentials
            return
        if error.code == 403:
            remedy = "it refuses this Host header: restart it with --allowed-hosts, or use an address that it knows"
        raise UserError(f"the MLflow server at {uri} answered {error.code} {error.reason}; {remedy}") from error
    except (OSError, ValueError) as error:  # refused, unknown host, timed out, bad certificate; not a URL
        reason = getattr(error, "reason", None) or error
        raise UserError(f"the MLflow server at {uri} cannot be reached ({reason}); {remedy}") from error


def ask_server(uri: str, path: str, timeout: float = 5.0) -> str:
    """What a server answers below its address; raises OSError and ValueError as urllib does."""
    bare, user, password = user_info(uri)
    if not user:
        user, password = (os.environ.get(f"MLFLOW_TRACKING_{word}", "") for word in ("USERNAME", "PASSWORD"))
    request = urllib.request.Request(bare.rstrip("/") + path)
    if user:
        request.add_header("Authorization", f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}")
    with urllib.request.urlopen(request, timeout=timeout, context=_tls(uri)) as answer:
        return str(answer.read().decode())


def _tls(uri: str) -> ssl.SSLContext | None:
    """TLS settings as MLflow's client has them, so that the check and the client agree."""
    if not uri.startswith("https"):
        return None
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() == "true":
        return ssl._create_unverified_context()
    return ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))
