"""A small local hub: enough of the protocol of huggingface.co for `huggingface_hub`, `transformers` and `datasets` to be the client.

    with HubServer([Repository("owner/model", {commit: folder}), Repository("owner/data", {commit: folder}, kind="dataset")]) as hub:
        subprocess.run([...], env=hub.environment(tmp_path))        # HF_ENDPOINT, HF_HOME, no proxy, no telemetry

What it serves, for repositories of models and of data sets alike (`datasets.load_dataset("owner/data", revision=…)` reads
parquet, JSON lines and CSV files of a `kind="dataset"` repository: put them below `data/`, or name them in the YAML head of README.md):

- information on a repository at a revision, its tree, its references, paths-info, and the check of access
- files by branch, tag, commit or the beginning of a commit, whole or from a byte on (`Range`), with the ETags that the hub gives
- what `create_repo` and `upload_folder` send with the token `HubServer.token` (see `hub_server.writing`): new repositories, commits, large
  files, and the check of a card's metadata; `hub.written` holds it, and `hub.refuse_large(times=1)` lets the next large files fail
- refusals as the hub words them: a repository, revision or file that is not there; a gated one without the token `HubServer.token`

What happens on the way is under the test's control: `hub.requests` lists every request that came (method, path, range);
`hub.break_off(NAME, after=BYTES, times=1)` closes the connection in the midst of a file, and `hub.pause(NAME, after=BYTES, seconds=S)` waits
in the midst of one; `hub.stop()` ends the server, after which a client finds nobody.
"""

from __future__ import annotations

import json
import re
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from hub_server.repositories import Entry, Repository
from hub_server.writing import BATCH, STORE, WRITE, Conflict, Written, card_errors

API = re.compile(
    r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|refs|auth-check|paths-info)(?:/([^/]+)(?:/(.*))?)?)?"
)
FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass(frozen=True)
class Request:
    """A request that came: `start` is the byte from which a file was asked for."""

    method: str
    path: str
    start: int = 0


@dataclass
class HubServer:
    """Serves `repositories` on a free port of this machine from `with` on."""

    repositories: Sequence[Repository]
    token: str = "hf_local"  # of no account: it opens gated repositories of this server
    requests: list[Request] = field(default_factory=list)
    _broken: dict[str, list[int]] = field(default_factory=dict)
    _paused: dict[str, tuple[int, float]] = field(default_factory=dict)
    _refused: int = 0

    def __enter__(self) -> Self:
        self.repositories = list(self.repositories)
        self._folder = tempfile.TemporaryDirectory()
        self.written = Written(Path(self._folder.name))
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def environment(self, home: Path) -> dict[str, str]:
        """Variables of a process whose hub this is, and whose caches lie in `home`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home / "huggingface"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "XDG_CACHE_HOME": str(home / "cache"),
            "NO_PROXY": "*",
            "no_proxy": "*",
        }

    def break_off(self, name: str, *, after: int, times: int = 1) -> None:
        """Close the connection after `after` bytes of the file `name`, the next `times` that it is sent."""
        self._broken[name] = [after] * times

    def pause(self, name: str, *, after: int, seconds: float) -> None:
        """Wait after `after` bytes of the file `name`, each time that it is sent."""
        self._paused[name] = (after, seconds)

    def refuse_large(self, *, times: int = 1) -> None:
        """Answer 507 to the next `times` that the content of a large file comes."""
        self._refused = times

    def sent(self, name: str) -> list[Request]:
        """The requests in which the bytes of the file `name` were asked for."""
        return [each for each in self.requests if each.method == "GET" and each.path.endswith(f"/{name}")]

    def find(self, kind: str, name: str) -> Repository | None:
        return next((each for each in self.repositories if (each.kind, each.name) == (kind, name)), None)


class _Refusal(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:  # the name that http.server calls
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are listed, not printed."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        start = int(found[1]) if (found := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        self.hub.requests.append(Request(self.command, path, start))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        raw = urlsplit(self.path).path  # quoted: a branch's name may hold a slash
        try:
            if match := FILE.fullmatch(raw):
                self._file(*map(unquote, (match[1] or "", match[2], match[3], match[4])), start=start)
            elif (answer := self._write(raw, body)) is not None:
                self._json(*answer)
            elif match := API.fullmatch(raw):
                self._json(self._api(*(unquote(part or "") for part in match.groups()), body=body.decode()))
            else:
                raise _Refusal(404, "", f"nothing at {path}")
        except _Refusal as refusal:
            headers = {"X-Error-Message": str(refusal), **({"X-Error-Code": refusal.code} if refusal.code else {})}
            self._json({"error": str(refusal)}, refusal.status, headers)
        except (BrokenPipeError, ConnectionResetError):  # a client that was killed
            self.close_connection = True

    def _write(self, raw: str, body: bytes) -> tuple[Any, int] | None:
        """Answer and status for what changes something; None for any other request."""
        hub = self.hub
        if raw == "/api/validate-yaml":
            errors = [{"message": each} for each in card_errors(json.loads(body)["content"])]
            return {"errors": errors, "warnings": []}, 400 if errors else 200
        if raw != "/api/repos/create" and not any(each.fullmatch(raw) for each in (WRITE, BATCH, STORE)):
            return None
        if found := STORE.fullmatch(raw):  # as on the hub, this address is a secret of its own
            if hub._refused:
                hub._refused -= 1
                raise _Refusal(507, "", "no room")
            hub.written.store(found[1], body)
            return {}, 200
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            raise _Refusal(401, "", "Invalid username or password.")
        if found := BATCH.fullmatch(raw):
            return hub.written.batch(hub.url, body), 200
        if found := WRITE.fullmatch(raw):
            repository = self._repository("model", found[1], files=False)
            commit = self._commit(repository, unquote(found[3]))
            if found[2] == "preupload":
                return hub.written.announce(repository, commit, body), 200
            return hub.written.commit(repository, commit, body, hub.url), 200
        try:
            return hub.written.create(body, hub.repositories, hub.url), 200
        except Conflict as conflict:
            return {"error": f"You already created this model repo: {conflict}", "url": f"{hub.url}/{conflict}"}, 409

    def _repository(self, kind: str, name: str, *, files: bool) -> Repository:
        found = self.hub.find(kind, name)
        if found is None:
            raise _Refusal(401, "RepoNotFound", "Invalid username or password.")
        is_allowed = self.headers.get("Authorization") == f"Bearer {self.hub.token}"
        if found.gated and files and not is_allowed:
            raise _Refusal(
                403 if self.headers.get("Authorization") else 401,
                "GatedRepo",
                f"Access to {kind} {name} is restricted.",
            )
        return found

    def _commit(self, repository: Repository, revision: str) -> str:
        commit = repository.commit(revision or "main")
        if commit is None:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _api(self, kind: str, name: str, what: str, revision: str, inside: str, *, body: str) -> Any:
        repository = self._repository(kind.removesuffix("s"), name, files=what == "auth-check")
        if what == "refs":
            return repository.refs()
        if what == "auth-check":
            return {}
        commit = self._commit(repository, revision)
        if what == "tree":
            return self._tree(repository, commit, inside)
        if what == "paths-info":
            fields = parse_qs(body)
            paths = fields.get("paths") or json.loads(body).get("paths", [])
            return [entry.describe() for path in paths if (entry := repository.entry(commit, path))]
        return {**repository.info(commit), "private": name in self.hub.written.private}

    def _tree(self, repository: Repository, commit: str, inside: str) -> list[dict[str, Any]]:
        prefix = f"{inside.rstrip('/')}/" if inside else ""
        below = [entry for entry in repository.entries(commit) if entry.name.startswith(prefix)]
        if prefix and not below:
            raise _Refusal(404, "EntryNotFound", f"{inside} does not exist on this revision")
        folders = {entry.name[len(prefix) :].rpartition("/")[0] for entry in below} - {""}
        if parse_qs(urlsplit(self.path).query).get("recursive", ["False"])[0].lower() != "true":
            below = [entry for entry in below if "/" not in entry.name[len(prefix) :]]
            folders = {folder.split("/")[0] for folder in folders}
        trees = [{"type": "directory", "path": prefix + folder, "size": 0, "oid": commit} for folder in sorted(folders)]
        return [*trees, *(entry.describe() for entry in below)]

    def _file(self, datasets: str, name: str, revision: str, path: str, *, start: int) -> None:
        repository = self._repository("dataset" if datasets else "model", name, files=True)
        commit = self._commit(repository, revision)
        entry = repository.entry(commit, path)
        if entry is None:
            raise _Refusal(404, "EntryNotFound", "Entry not found")
        self._send(entry, commit, start)

    def _send(self, entry: Entry, commit: str, start: int) -> None:
        size = entry.size
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{entry.etag}"')
        self.send_header("Accept-Ranges", "bytes")
        if entry.is_large:
            self.send_header("X-Linked-Size", str(size))
            self.send_header("X-Linked-ETag", f'"{entry.etag}"')
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        file = entry.name.rpartition("/")[2]
        broken = self.hub._broken.get(file)
        content = entry.path.read_bytes()[start:]
        if broken:
            self.wfile.write(content[: broken.pop()])
            self.wfile.flush()
            self.close_connection = True
            return
        after, seconds = self.hub._paused.get(file, (0, 0))
        self.wfile.write(content[:after])
        self.wfile.flush()
        time.sleep(seconds)
        self.wfile.write(content[after:])

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(value).encode()
        self.send_response(status)
        for name, said in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, said)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)
