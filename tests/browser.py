"""A headless Chromium that tests drive as a person does: mouse, keys, a phone's screen, paper.

Speaks the DevTools protocol through aiohttp, which Ray brings along, so that no browser driver is needed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-port=0"]
KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), " ": (32, " "), "ArrowRight": (39, ""), "ArrowLeft": (37, "")}


class Browser:
    """One tab. `faults` are uncaught exceptions and errors in the console since the tab was opened."""

    def __init__(self, socket: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._socket, self._loop, self._number = socket, loop, 0
        self.faults: list[str] = []
        self._loaded = False
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its answer."""
        self._number += 1
        number = self._number
        self._loop.run_until_complete(
            self._socket.send_str(json.dumps({"id": number, "method": method, "params": parameters}))
        )
        while True:
            told = json.loads(self._loop.run_until_complete(asyncio.wait_for(self._socket.receive_str(), 120)))
            if told.get("id") == number:
                assert "error" not in told, f"{method}: {told['error']}"
                return told["result"]
            self._hear(told)

    def _hear(self, told: dict[str, Any]) -> None:
        what, about = told.get("method"), told.get("params", {})
        if what == "Runtime.exceptionThrown":
            details = about["exceptionDetails"]
            self.faults.append(details.get("exception", {}).get("description") or details["text"])
        elif what == "Runtime.consoleAPICalled" and about["type"] in ("error", "assert"):
            self.faults.append(" ".join(str(each.get("value", each.get("description"))) for each in about["args"]))
        elif what == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.faults.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
        elif what == "Page.loadEventFired":
            self._loaded = True

    def open(self, address: str, width: int = 1200, height: int = 900, *, phone: bool = False) -> None:
        """Show `address` in a window of this size, and wait until it is loaded."""
        self.call("Page.bringToFront")  # a link may have opened a tab over this one, and what is behind is not drawn
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        for each in ("about:blank", address):  # a step within one document would load nothing
            self._loaded = False
            self.call("Page.navigate", url=each)
            self.wait(lambda: self._loaded, 180)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait(self, until: Any, seconds: float = 60) -> None:
        """Until a JavaScript expression (or a function here) is true."""
        end = time.monotonic() + seconds
        while not (until() if callable(until) else self.run(until)):
            assert time.monotonic() < end, f"not within {seconds:g} s: {until}"
            time.sleep(0.1)
            self.run("0")  # reads what the tab has told meanwhile

    def middle(self, selector: str) -> tuple[float, float]:
        """Where the middle of the first such element is, after it was scrolled into view."""
        box = f"const box = document.querySelector({json.dumps(selector)})"
        spot = self.run(
            f"(() => {{ {box}; box.scrollIntoView({{ block: 'center' }}); const at = box.getBoundingClientRect(); return [at.x + at.width / 2, at.y + at.height / 2]; }})()"
        )
        return spot[0], spot[1]

    def point(self, x: float, y: float) -> None:
        """Move the mouse there."""
        for across in (x - 3, x):
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=across, y=y)

    def click(self, selector: str) -> None:
        x, y = self.middle(selector)
        self.point(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def tabs(self) -> list[str]:
        """The addresses of all tabs: a link may open one of its own."""
        return [each["url"] for each in self.call("Target.getTargets")["targetInfos"] if each["type"] == "page"]

    def press(self, key: str) -> None:
        """A key of KEYS, where the focus is."""
        code, text = KEYS[key]
        about = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def picture(self, file: Path, *, whole: bool = False, part: str = "", most: int = 900) -> Path:
        """A PNG of what is seen, of the `whole` page, or of the first element of the selector `part` (at most `most` pixels high)."""
        clip: dict[str, Any] = {}
        if part:
            x, y, wide, high = self.run(
                f"(({{ x, y, width, height }}) => [x + scrollX, y + scrollY, width, height])(document.querySelector({part!r}).getBoundingClientRect())"
            )
            clip = {"clip": {"x": x - 12, "y": y, "width": wide + 24, "height": min(high, most), "scale": 1}}
        made = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole or bool(part), **clip)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(made["data"]))
        return file

    def paper(self, file: Path) -> Path:
        """The page as it is printed, as PDF."""
        made = self.call("Page.printToPDF", printBackground=True, paperWidth=8.27, paperHeight=11.69)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(made["data"]))
        return file


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile in the folder `profile`, ended with the context."""
    import aiohttp

    assert CHROMIUM is not None
    running = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    loop = asyncio.new_event_loop()

    async def connect(port: str) -> tuple[Any, Any]:
        session = aiohttp.ClientSession()
        async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            tabs = [tab for tab in await answer.json() if tab["type"] == "page"]
        return session, await session.ws_connect(tabs[0]["webSocketDebuggerUrl"], max_msg_size=0)

    try:
        session, socket = loop.run_until_complete(connect(_port(profile)))
        try:
            yield Browser(socket, loop)
        finally:
            with suppress(aiohttp.ClientError):
                loop.run_until_complete(socket.close())
                loop.run_until_complete(session.close())
    finally:
        running.terminate()
        running.wait(30)
        loop.close()


def _port(profile: Path) -> str:
    file = profile / "DevToolsActivePort"
    end = time.monotonic() + 60
    while not (file.is_file() and file.read_text().strip()):
        assert time.monotonic() < end, "the browser did not start"
        time.sleep(0.1)
    return file.read_text().split()[0]
