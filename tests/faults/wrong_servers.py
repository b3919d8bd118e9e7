"""Servers that answer wrongly when a test wants it: an S3 bucket behind bad weather, MLflow behind a proxy with moods."""

from __future__ import annotations

import http.client
import http.server
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray_head import free_ports
from s3 import s3_server

SLOW_SECONDS = 0.4
SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>Please try again.</Message></Error>"


@dataclass
class Weather:
    """What happens to the next `left` requests to a bucket whose method and path match."""

    kind: str = ""
    left: int = 0
    method: str = ""
    path: str = ""
    hits: int = 0

    def clear(self) -> None:
        """No more of it."""
        self.kind, self.left, self.method, self.path, self.hits = "", 0, "", "", 0

    def turn(self, kind: str, times: int, method: str = "", path: str = "") -> None:
        """From now on."""
        self.kind, self.left, self.method, self.path, self.hits = kind, times, method, path, 0

    def now(self, method: str, path: str) -> str:
        """What happens to a request."""
        if self.left <= 0 or self.method not in ("", method) or not re.search(self.path, path):
            return ""
        self.left -= 1
        self.hits += 1
        return self.kind

    def over(self, application: Any) -> Any:
        """The application behind this weather."""

        def serve(environment: dict[str, Any], start: Callable[..., Any]) -> Any:
            kind = self.now(environment["REQUEST_METHOD"], environment["PATH_INFO"])
            if kind in ("503", "500"):
                start(
                    {"503": "503 Slow Down", "500": "500 Internal Server Error"}[kind], [("Content-Type", "text/xml")]
                )
                return [SLOW_DOWN % {"503": b"SlowDown", "500": b"InternalError"}[kind]]
            if kind == "slow":
                time.sleep(SLOW_SECONDS)
            if kind == "cut":
                return _hang_up(environment)
            answer = application(environment, start)
            return _halves(answer, environment) if kind == "truncated" else answer

        return serve


def _hang_up(environment: dict[str, Any]) -> Any:
    with suppress(OSError):
        environment["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError("cut")


def _halves(answer: Any, environment: dict[str, Any]) -> Iterator[bytes]:
    """The first half of a body; then the connection is closed."""
    content = b"".join(answer)
    if len(content) > 1:
        yield content[: len(content) // 2]
    _hang_up(environment)


@dataclass
class Bucket:
    """A bucket, the environment of those who use it, and its weather."""

    uri: str
    environment: dict[str, str]
    weather: Weather

    @classmethod
    @contextmanager
    def served(cls) -> Iterator[Bucket]:
        """A bucket for the time of the `with`."""
        module = pytest.importorskip("moto.moto_server.threaded_moto_server")
        make, weather = module.make_server, Weather()

        def make_in_weather(host: str, port: int, app: Any, *more: Any, **named: Any) -> Any:
            return make(host, port, weather.over(app), *more, **named)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "make_server", make_in_weather)
            with s3_server() as uri:
                environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
                # The client's own tries are few, so that what comes from the server reaches ours.
                yield cls(uri, {**environment, "AWS_MAX_ATTEMPTS": "1"}, weather)


@dataclass
class Mlflow:
    """An MLflow server behind a proxy; `mood` is what the proxy does to requests of the API, `after` how many it lets pass before."""

    uri: str
    mood: str = ""
    after: int = 0
    refused: int = 0
    passed: list[str] = field(default_factory=list)

    def turn(self, mood: str, after: int = 0) -> None:
        """From now on."""
        self.mood, self.after, self.refused = mood, after, 0

    @classmethod
    @contextmanager
    def served(cls, folder: Path) -> Iterator[Mlflow]:
        """A server with a database in `folder` for the time of the `with`."""
        folder.mkdir()
        behind, front = free_ports(2)
        words = [
            "server",
            "--backend-store-uri",
            f"sqlite:///{folder}/mlflow.db",
            "--host",
            "127.0.0.1",
            "--port",
            str(behind),
        ]
        words += ["--artifacts-destination", str(folder / "artifacts"), "--workers", "1"]
        mlflow = cls(f"http://127.0.0.1:{front}")
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *words], stdout=log, stderr=log, start_new_session=True
            )
        server = http.server.ThreadingHTTPServer(("127.0.0.1", front), _proxy(mlflow, behind))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            _wait_for(behind, process, folder / "log")
            yield mlflow
        finally:
            server.shutdown()
            server.server_close()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    while True:
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            return
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.3)


WRONG: Mapping[str, tuple[int, str, bytes]] = {
    "500": (500, "application/json", b'{"error_code": "INTERNAL_ERROR", "message": "out of order"}'),
    "malformed": (200, "application/json", b'{"experiment": {"experiment_id": "1", "na'),
    "other": (200, "application/json", b'{"greeting": "hello"}'),
    "page": (200, "text/html", b"<html><body>Please sign in</body></html>"),
}
HANG_SECONDS = 3.0


def _proxy(mlflow: Mlflow, behind: int) -> type[http.server.BaseHTTPRequestHandler]:
    class Proxy(http.server.BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if mlflow.mood and "/api/" in self.path:
                if mlflow.after > 0:
                    mlflow.after -= 1
                else:
                    mlflow.refused += 1
                    self._be_wrong(mlflow.mood)
                    return
            connection = http.client.HTTPConnection("127.0.0.1", behind, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            connection.request(self.command, self.path, body, {**headers, "Host": f"127.0.0.1:{behind}"})
            answer = connection.getresponse()
            self._send(answer.status, answer.getheader("Content-Type") or "application/json", answer.read())
            connection.close()

        def _be_wrong(self, mood: str) -> None:
            if mood == "hangs":
                time.sleep(HANG_SECONDS)
            if mood in ("hangs", "cut"):
                self.close_connection = True
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                return
            self._send(*WRONG[mood])

        def _send(self, code: int, kind: str, content: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

        def log_message(self, *words: object) -> None:
            pass

    return Proxy
