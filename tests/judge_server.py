"""A small server that speaks OpenAI's chat completions, as a test wants it: right, busy, slow, fickle or full of nonsense."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[str, int], Any]
"""From a prompt and the number of the request to the text of the reply, or (status, headers, body)."""


def fair(prompt: str, number: int) -> str:
    """Right where the answer holds one of the references; what else it is asked, it is ready."""
    if "Reference answers" not in prompt:
        return "ready"
    lines = dict(line.split(": ", 1) for line in prompt.splitlines() if ": " in line)
    references = lines["Reference answers"].split(" | ")
    return "VERDICT: " + ("yes" if any(text in lines["Answer"] for text in references) else "no")


@dataclass
class Server:
    """Its address, and the requests that it got."""

    address: str
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


@contextmanager
def serving(reply: Reply = fair) -> Iterator[Server]:
    """A server on this machine for the time of the `with`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.requests.append({**body, "path": self.path})
            server.keys.append(self.headers.get("Authorization"))
            result = reply(body["messages"][0]["content"], len(server.requests))
            message = {"choices": [{"message": {"role": "assistant", "content": result}}]}
            status, headers, content = result if isinstance(result, tuple) else (200, {}, json.dumps(message))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content.encode())

        def log_message(self, *words: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{listener.server_address[1]}/v1")
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
