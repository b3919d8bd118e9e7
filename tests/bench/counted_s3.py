"""A local S3 server that counts the requests that it answers, by kind and by the folder of the store that they are about."""

from __future__ import annotations

import logging
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote

BUCKET = "lmmcl-test"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


class Counting:
    """A WSGI application around another: counts what the clients below `prefix` of the bucket ask."""

    def __init__(self, application: Any, prefix: str) -> None:
        self._application, self._prefix = application, f"/{BUCKET}/{prefix}"
        self.requests: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        status: list[str] = []

        def started(line: str, *more: Any) -> Any:
            status.append(line.split()[0])
            return start(line, *more)

        answer: Iterable[bytes] = self._application(request, started)
        if (name := self._name(request)) is not None:
            with self._lock:
                self.requests[f"{_kind(request)}{_outcome(status)} {name}"] += 1
        return answer

    def _name(self, request: dict[str, Any]) -> str | None:
        path = unquote(request["PATH_INFO"])
        if path.rstrip("/") == f"/{BUCKET}":  # a listing, whose folder is in the query
            path = f"/{BUCKET}/{parse_qs(request.get('QUERY_STRING', '')).get('prefix', [''])[0]}"
        if not path.startswith(self._prefix):
            return None
        return path.removeprefix(self._prefix).strip("/").split("/")[0] or "."


def _kind(request: dict[str, Any]) -> str:
    method, query = request["REQUEST_METHOD"], request.get("QUERY_STRING", "")
    if "uploads" in query or "uploadId" in query:
        return "multipart"
    if method == "GET":
        return "list" if "list-type" in query or "prefix=" in query else "read"
    if method == "PUT":
        if "HTTP_X_AMZ_COPY_SOURCE" in request:
            return "copy"
        return "create" if "HTTP_IF_NONE_MATCH" in request else "write"
    return {"HEAD": "head", "DELETE": "remove", "POST": "remove"}.get(method, method)


def _outcome(status: list[str]) -> str:
    return {"404": " (absent)", "412": " (refused)"}.get(status[0] if status else "", "")


@contextmanager
def counted_s3(prefix: str) -> Iterator[tuple[str, dict[str, str], Counting]]:
    """A server in this process: the URI of a store in it, the environment of its clients, and what counts."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    counting = Counting(DomainDispatcherApplication(create_backend_app), prefix)
    server = make_server("127.0.0.1", 0, counting, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{server.port}"
    try:
        make = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")
        urllib.request.urlopen(make).close()
        yield f"s3://{BUCKET}/{prefix}", {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}, counting
    finally:
        server.shutdown()
        thread.join()
