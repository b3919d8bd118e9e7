"""Commands of lmmcl, each in a process forked from one that has imported the libraries: `python -m hub_server.walk`.

Reads lines of JSON: `{"run": [WORDS]}` is the command line `lmmcl WORDS`, and `{"reload": CHECKPOINT, "store": S, "exported": E}`
tells how far an exported folder, loaded by transformers alone, is from the checkpoint in its store.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from typing import Any


def run(words: list[str]) -> dict[str, Any]:
    """What a command printed, and its exit code."""
    from lmmcl.cli import main

    sys.argv = ["lmmcl", *words]
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    return {"code": code, "output": out.getvalue()}


def reload(checkpoint: str, store: str, exported: str) -> dict[str, Any]:
    """The exported folder against the checkpoint, and the pre-trained model against the folder that the hub serves."""
    import torch
    from models.walk_type import logits, pictures
    from transformers import AutoModelForImageTextToText

    from lmmcl.api.loading import load_model, load_processor
    from lmmcl.models.processing.encode import encode
    from lmmcl.models.processing.padding import pad

    tuned, processor = load_model(checkpoint, store=store), load_processor(checkpoint, store=store)
    again = AutoModelForImageTextToText.from_pretrained(exported, dtype=torch.float32).eval()
    batch = pad(processor, [encode(processor, each, with_answer=True) for each in pictures()])
    with torch.inference_mode():
        off = float((logits(again, batch) - logits(tuned, batch)).abs().max())
    tied = again.get_input_embeddings().weight is again.get_output_embeddings().weight
    return {"off": off, "tied": tied, "parameters": sum(parameter.numel() for parameter in again.parameters())}


def in_a_process(task: dict[str, Any]) -> str:
    """What the task gives, as JSON, from a fork."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        os.close(reader)
        try:
            result = run(task["run"]) if "run" in task else reload(task["reload"], task["store"], task["exported"])
        except Exception:  # noqa: BLE001  # told to the test, which fails with it
            result = {"code": -1, "output": traceback.format_exc()}
        with os.fdopen(writer, "w") as pipe:
            pipe.write(json.dumps(result))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def serve() -> None:
    """Answer each line that is read."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import torch
    import transformers

    import lmmcl.api.loading
    import lmmcl.cli
    import lmmcl.runner.command
    import lmmcl.training.finetune  # noqa: F401  # imported before the first fork

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        print(in_a_process(json.loads(line)), file=answers, flush=True)


if __name__ == "__main__":
    serve()
