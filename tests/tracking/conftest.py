"""A server on this machine that answers as a test wants it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

Handler = type[BaseHTTPRequestHandler]


@contextmanager
def _serving(handler: Handler) -> Iterator[str]:
    http = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()


@pytest.fixture
def answering() -> Iterator[Callable[[Handler], str]]:
    """From a handler to the address of a server that answers with it until the test ends."""
    with ExitStack() as servers:
        yield lambda handler: servers.enter_context(_serving(handler))
