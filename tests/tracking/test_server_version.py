"""Shared views are used where the pages of the server, or of the installed MLflow, are known to show them."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest

from lmmcl.private_api.mlflow_private import NEWEST
from lmmcl.tracking.server_version import are_views_supported


class Version(BaseHTTPRequestHandler):
    """A server that tells a version, or does not."""

    answer: str | None = "3.15.2"

    def do_GET(self) -> None:
        self.send_response(200 if self.answer and self.path == "/version" else 404)
        self.end_headers()
        self.wfile.write((self.answer or "").encode())

    def log_message(self, *_: object) -> None: ...


def test_a_server_says_which_version_its_pages_are_of(
    answering: Callable[[type[BaseHTTPRequestHandler]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = answering(Version)
    assert are_views_supported(server)
    for answer in ("2.9.0", None):
        monkeypatch.setattr(Version, "answer", answer)
        assert not are_views_supported(server)


@pytest.mark.parametrize(("installed", "supported"), [(NEWEST, True), ((NEWEST[0], NEWEST[1] + 1), False)])
def test_the_pages_of_a_database_are_those_of_the_installed_version(
    installed: tuple[int, int], supported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Newer ones that may be installed too work without the view."""
    monkeypatch.setattr("lmmcl.tracking.server_version.version", lambda _: "{}.{}.1".format(*installed))
    assert are_views_supported("sqlite:///a.db") is supported
