"""A judge behind an OpenAI-compatible address: one POST to `chat/completions` for each answer, several at once.

The key is read from the environment variable that the sweep file names when it is sent, and stands in no key, record, log
or message. A server that is busy is asked again after a pause (its own, where it says one); a redirect is refused, for the
key must not follow it to another host.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from email.message import Message
from typing import IO, Any

from lmmcl.back_off import BackOff
from lmmcl.errors import UserError, cut
from lmmcl.masking import mask
from lmmcl.tasks.metrics.judge import Judge

PAUSES = BackOff(first=1.0, longest=60.0, retries=8)
BUSY = (408, 409, 425, 429, 500, 502, 503, 504, 529)
"""HTTP answers after which waiting helps."""
LONGEST_PAUSE = 300.0
LONGEST_ANSWER = 1_000_000

log = logging.getLogger("lmmcl")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def ask_server(judge: Judge, prompts: Sequence[str], on_reply: Callable[[str, str], None]) -> None:
    """Ask each prompt; `on_reply` gets prompt and reply as they come. Raises UserError with what the server says or lacks.

    After the first failure no more requests are sent; the replies to those under way, which are paid for, still come to `on_reply`.
    """
    headers = _headers(judge)
    failure: BaseException | None = None
    with ThreadPoolExecutor(judge.at_once) as pool:
        prompt_of = {pool.submit(_ask, judge, prompt, headers, PAUSES): prompt for prompt in prompts}
        try:
            for task in as_completed(prompt_of):
                if task.cancelled():
                    continue
                error = task.exception()
                if error is None:
                    on_reply(prompt_of[task], task.result())
                elif failure is None:
                    failure = error
                    for other in prompt_of:
                        other.cancel()
        finally:
            pool.shutdown(cancel_futures=True)
    if failure is not None:
        raise failure


def check_judge(judge: Judge | None) -> None:
    """One short question to a judge behind an address, before anything else is spent; raises UserError without an answer."""
    if judge is not None and judge.address:
        _ask(judge, "Reply with the word: ready", _headers(judge), BackOff(first=1.0, retries=2))


def _headers(judge: Judge) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "User-Agent": "lmmcl"}
    if not judge.key_variable:
        return headers
    key = os.environ.get(judge.key_variable, "").strip()
    if not key:
        raise UserError(
            f"the environment variable {judge.key_variable}, which should hold the key of the judge {judge.label}, is not set: "
            f"export {judge.key_variable}=…"
        )
    return {**headers, "Authorization": f"Bearer {key}"}


def _ask(judge: Judge, prompt: str, headers: dict[str, str], pauses: BackOff) -> str:
    body = {
        "model": json.loads(judge.model_id),
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": judge.max_new_tokens,
    }
    address = f"{judge.address.rstrip('/')}/chat/completions"
    request = urllib.request.Request(address, json.dumps(body).encode(), headers, method="POST")

    def send() -> bytes:
        with _OPENER.open(request, timeout=judge.timeout_s) as answer:
            content: bytes = answer.read(LONGEST_ANSWER)
            return content

    try:
        content = pauses.call(send, is_transient=_may_pass, on_retry=_wait)
    except urllib.error.HTTPError as error:
        raise UserError(
            f"{_place(judge)} answers {error.code} {error.reason}{_detail(error, headers)}{_remedy(error.code, judge)}"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{_place(judge)} cannot be reached: {mask(str(reason))}; start the server, or correct judge.address"
        ) from None
    except http.client.HTTPException as error:
        raise UserError(
            f"{_place(judge)} does not answer in HTTP: {mask(cut(str(error) or type(error).__name__))}"
        ) from None
    return _content(content, judge)


def _remedy(code: int, judge: Judge) -> str:
    """What mends an answer of that status; nothing where only the server's own words help."""
    if code in (401, 403):
        what = (
            f"check the key in {judge.key_variable}"
            if judge.key_variable
            else "name the variable with its key: key_variable"
        )
    elif code == 404:
        what = "check judge.address (usually it ends in /v1) and judge.model"
    elif 300 <= code < 400:
        what = "redirects are not followed, so that the key goes to no other host: write the final address"
    else:
        return ""
    return f"; {what}"


def _may_pass(error: Exception) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code in BUSY
    return isinstance(error, OSError | http.client.IncompleteRead)


def _wait(error: Exception, pause: float) -> None:
    """As long as the server asks for, beyond our own pause."""
    wanted = error.headers.get("Retry-After", "") if isinstance(error, urllib.error.HTTPError) else ""
    log.info("the judge is asked again in %.0f s: %s", pause, type(error).__name__)
    if wanted.isdigit():
        time.sleep(max(0.0, min(float(wanted), LONGEST_PAUSE) - pause))


def _place(judge: Judge) -> str:
    return f"the judge {judge.label} at {mask(judge.address)}"


def _detail(error: urllib.error.HTTPError, headers: dict[str, str]) -> str:
    """What the server says of it, without the key that some servers repeat."""
    try:
        text = error.read(2000).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    key = headers.get("Authorization", "").removeprefix("Bearer ")
    text = mask(text.replace(key, "***") if key else text)
    return f": {cut(text, 300)}" if text else ""


def _content(content: bytes, judge: Judge) -> str:
    """The reply in an answer; other JSON, or none, is an error of the server and no verdict."""
    try:
        answer: Any = json.loads(content)
        reply = answer["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError):
        raise UserError(
            f"{_place(judge)} does not speak OpenAI's chat completions; the address ends in /v1 for most servers"
        ) from None
    return reply if isinstance(reply, str) else ""
