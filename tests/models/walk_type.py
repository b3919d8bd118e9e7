"""The walk of image-text-to-text types, small and random, each in a process of its own: `python -m models.walk_type FOLDER`.

Reads names of types, one a line, and answers each with a line of JSON. The libraries are imported once and the process is forked
for each type, with a bound on its memory.

A checkpoint as the hub has it (names of transformers' own classes) is trained in two stages, exported, and loaded again by
transformers' auto class. The answer: `walked`, the recipe of each stage, and how far logits were from equal;
or `refused` with what the user would read, and whether anything had been trained by then.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

MEMORY = 10 * 2**30
"""Bytes of address space that a walk may take: a configuration that was not shrunk fails at once."""


WHOLE = ("apertus1p5", "diffusion_gemma")
"""Types whose default configuration cannot be made smaller, and need not be."""


def main(model_type: str, folder: Path) -> dict[str, Any]:
    """Walk a type below `folder`; what came of it."""
    from lmmcl.errors import UserError

    trained: list[str] = []
    name, _, is_bare = model_type.partition(" ")
    try:
        directory = (bare if is_bare else checkpoint)(name, folder / name.replace(".", "_"))
        return {"type": model_type, "walked": True, **walk(directory, folder, trained)}
    except UserError as error:
        reason = error.message.replace(str(folder), "FOLDER")
        return {"type": model_type, "walked": False, "refused": reason, "trained": trained}


def checkpoint(model_type: str, directory: Path) -> Path:
    """A `save_pretrained` directory of the type, small and random; raises what a user of it would get."""
    import torch
    from models.shrunk import shrunk
    from models.small_processors import small_config, small_processor, with_tokens
    from transformers import AutoConfig

    from lmmcl.models.model_class import model_class

    values = small_config(model_type, shrunk(model_type))
    config = AutoConfig.for_model(**values)
    cls = model_class(config, f"model {directory}")
    processor = small_processor(model_type, config)
    torch.manual_seed(0)
    model = cls._from_config(AutoConfig.for_model(**with_tokens(values, processor)), dtype=torch.float32)
    for parameter in model.parameters():
        if not parameter.any():  # what begins at zero would hide what comes before it
            torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    as_published(directory)
    return directory


def bare(model_type: str, directory: Path) -> Path:
    """What a published checkpoint of the type says of itself, for types that are refused: no weights, no settings of images."""
    from models.shrunk import shrunk
    from models.small_families import CHATML, CHATML_MARKS, tokenizer
    from models.small_processors import CLASSES, IMAGES, small_config
    from safetensors.torch import save_file
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    directory.mkdir()
    words = tokenizer(*CHATML_MARKS, bos="<s>", eos="<|im_end|>", image_token="<image>", video_token="<video>")
    words.chat_template = CHATML.replace("IMAGE", "<image>")
    words.save_pretrained(directory)
    values = {"model_type": model_type} if model_type in WHOLE else small_config(model_type, shrunk(model_type))
    (directory / "config.json").write_text(json.dumps(values, default=str))
    save_file({}, directory / "model.safetensors")
    name = CLASSES.get(model_type) or PROCESSOR_MAPPING_NAMES.get(model_type)
    (directory / "processor_config.json").write_text(json.dumps({"processor_class": name} if name else {}))
    images = IMAGES.get(model_type) or (IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type) or {}).get("torchvision")
    (directory / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": images} if images else {}))
    return directory


def as_published(directory: Path) -> None:
    """Give the processor's files the names of transformers' own classes, as checkpoints of the hub have them."""
    from lmmcl.models.processing.assembly import PREFIX
    from lmmcl.models.processing.processors import INSTEAD

    theirs = {ours: name for name, ours in INSTEAD.items()}
    for path in directory.glob("*processor_config.json"):
        values = json.loads(path.read_text())
        for part in (values, *(value for value in values.values() if isinstance(value, dict))):
            for key in ("processor_class", "image_processor_type"):
                if key in part:
                    part[key] = theirs.get(part[key], part[key].removeprefix(PREFIX).removesuffix("Pil"))
        path.write_text(json.dumps(values))


def pictures() -> list[Any]:
    """Questions about pictures of unlike size, all of unlike length."""
    import numpy as np
    from PIL import Image

    from lmmcl.tasks.examples import ask

    def picture(seed: int, wide: int = 32, high: int = 32) -> Image.Image:
        return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (high, wide, 3), dtype=np.uint8))

    return [
        ask("a", "What colour is the circle?", "red", picture(0)),
        ask("b", "How many rings are in this image, all in all?", "12", picture(1, 100, 40)),
        ask("c", "Which letter?", "B", picture(2, 20, 64)),
        ask("d", "What time does the clock show?", "12:45", picture(3, 64, 64)),
    ]


def walk(directory: Path, folder: Path, trained: list[str]) -> dict[str, Any]:
    """Train the attention, then the MLP, of the checkpoint, answer, export, load again; `trained` grows with each stage."""
    import torch
    from transformers import AutoModelForImageTextToText

    from lmmcl.config.cluster import TrainingPlacement
    from lmmcl.config.settings import Training
    from lmmcl.errors import UserError
    from lmmcl.evaluation.generate import answer
    from lmmcl.ledger import Ledger
    from lmmcl.methods.recipes.recipe import get_recipe
    from lmmcl.models import get_model
    from lmmcl.models.processing.encode import encode
    from lmmcl.models.processing.padding import pad
    from lmmcl.steps import Finetune, Pretrained
    from lmmcl.tasks.skills import Benchmark, Skill
    from lmmcl.training.finetune import finetune
    from lmmcl.weights.checkpoint import ensure_pretrained, export, load_checkpoint

    ledger = Ledger(str(folder / "store"))
    model = get_model(str(directory))
    model.role_counts()  # as a plan asks for them: what cannot walk is refused here
    benchmark = Benchmark("asked", 1, "exact_match", load=pictures, max_new_tokens=3)
    skill = Skill("taught", 1, load=pictures, benchmark=benchmark)
    parent: Any = Pretrained(model)
    ensure_pretrained(parent, ledger)
    settings = Training(learning_rate=1e-2, global_batch_size=4, max_steps=2, precision="fp32")
    moved: dict[str, int] = {}
    for recipes in (("sa_proj",), ("gate_up", "mlp")):
        for recipe in recipes:
            step = Finetune(parent, get_recipe(recipe), None, skill, settings, seed=0)
            try:
                moved[recipe] = finetune(step, ledger, TrainingPlacement())["trained_parameters"]
            except UserError:
                if recipe == recipes[-1]:
                    raise
                continue
            trained.append(recipe)
            parent = step
            break
    tuned, processor = load_checkpoint(parent, ledger, precision="fp32"), model.load_processor()
    together = answer(tuned, processor, benchmark, limit=None, batch_size=4)
    alone = answer(tuned, processor, benchmark, limit=None, batch_size=1)

    exported = export(ledger.checkpoint(parent.key), ledger, folder / "exported")
    again = AutoModelForImageTextToText.from_pretrained(
        exported, dtype=torch.float32, attn_implementation=tuned.config._attn_implementation
    ).eval()
    reread = get_model(str(exported)).load_processor()
    rows = [encode(reread, each, with_answer=True) for each in pictures()]
    changed = dict(rows[0])
    changed["input_ids"] = rows[0]["input_ids"].clone()
    changed["input_ids"][-1] = rows[1]["input_ids"][-2]
    with torch.inference_mode():
        batch = logits(again, pad(reread, rows))
        single = [logits(again, pad(reread, [row]))[0] for row in rows]
        return {
            "recipes": moved,
            "total_parameters": sum(parameter.numel() for parameter in tuned.parameters()),
            "attention": tuned.config._attn_implementation,
            "answers_alike": [one.prediction for one in together] == [one.prediction for one in alone],
            "export_off": float((batch - logits(tuned, pad(processor, rows))).abs().max()),
            "batch_off": max(
                float((row[-len(one) :] - one).abs().max()) for row, one in zip(batch, single, strict=True)
            ),
            "leak": float((logits(again, pad(reread, [changed]))[0][:-1] - single[0][:-1]).abs().max()),
        }


def logits(model: Any, batch: dict[str, Any]) -> Any:
    """The logits of a padded batch at every position."""
    return model(**{name: value for name, value in batch.items() if name != "labels"}).logits.float()


def in_a_process(model_type: str, folder: Path) -> str:
    """What `main` returns, as JSON, from a fork with bounded memory; what went wrong where it ended otherwise."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        os.close(reader)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        try:
            result = main(model_type, folder)
        except Exception as error:  # noqa: BLE001  # told to the test, which fails with it
            place = " < ".join(
                f"{Path(frame.filename).name}:{frame.lineno}"
                for frame in reversed(traceback.extract_tb(error.__traceback__))
            )
            result = {
                "type": model_type,
                "walked": False,
                "crashed": f"{type(error).__name__}: {error} at {place[:300]}",
            }
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return answer or json.dumps({"type": model_type, "walked": False, "crashed": f"the process ended with {status}"})


def serve(folder: Path) -> None:
    """Answer each type that is read; what it wrote is deleted."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed would say on standard output that it found none
    import torch
    import transformers

    import lmmcl.training.finetune
    import lmmcl.weights.checkpoint  # noqa: F401  # imported before the first fork

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    for line in sys.stdin:
        own = folder / line.strip().replace(".", "_").replace(" ", "_")
        own.mkdir()
        os.environ["XDG_CACHE_HOME"] = str(own / "cache")
        print(in_a_process(line.strip(), own), flush=True)
        shutil.rmtree(own)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
