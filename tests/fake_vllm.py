"""vLLM as its documentation describes it, on the CPU: starts are counted, weights swapped through the worker's extension, adapters
put beside the base by PEFT."""

from __future__ import annotations

import copy
import importlib
import importlib.machinery
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file

from lmmcl.evaluation.engines.vllm_pool import close_engines
from lmmcl.models import get_model
from lmmcl.models.generation.decoding import answering, greedy
from lmmcl.models.processing.padding import pad


@dataclass(frozen=True)
class LoRARequest:
    """The adapter that is to answer."""

    lora_name: str
    lora_int_id: int
    lora_path: str


class FakeLLM:
    """What vLLM documents of its offline interface, answered by transformers: expands placeholders, stops at the given tokens."""

    asked: list[dict[str, Any]] = []  # noqa: RUF012
    made: list[dict[str, Any]] = []  # noqa: RUF012
    """The settings of each engine that was started."""
    adapters: list[LoRARequest | None] = []  # noqa: RUF012
    calls: list[str] = []  # noqa: RUF012

    def __init__(self, *, model: str, **settings: Any) -> None:
        FakeLLM.made.append(settings)
        self.settings, self.folder, self.awake = settings, Path(model), True
        self.lmm = get_model(model)
        self.model, self.processor = self.lmm.load_model(precision="fp32"), self.lmm.load_processor()
        self.llm_engine = SimpleNamespace(reset_encoder_cache=lambda: FakeLLM.calls.append("reset_encoder_cache"))

    def collective_rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[Any]:
        """Calls a method of the worker, which has those of the extension."""
        assert self.awake, "weights are swapped while the engine is awake"
        FakeLLM.calls.append(method)
        module, _, name = self.settings["worker_extension_cls"].rpartition(".")
        extension = getattr(importlib.import_module(module), name)
        worker = type(
            "Worker", (extension,), {"reload_weights": lambda _, weights_iterator: self._reload(weights_iterator)}
        )()
        return [getattr(worker, method)(*args)]

    def _reload(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        tensors = {name: tensor.clone() for name, tensor in weights}
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "model"
            shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
            self.model = get_model(str(folder)).load_model(precision="fp32")
            for parameter in self.model.parameters():
                parameter.data = parameter.data.clone()  # not of a file that goes

    def reset_prefix_cache(self) -> None:
        FakeLLM.calls.append("reset_prefix_cache")

    def reset_mm_cache(self) -> None:
        FakeLLM.calls.append("reset_mm_cache")

    def sleep(self, level: int) -> None:
        assert level == 1, "level 2 forgets the weights"
        assert self.settings["enable_sleep_mode"]
        self.awake = False

    def wake_up(self) -> None:
        self.awake = True

    def generate(
        self, prompts: list[dict[str, Any]], settings: Any, use_tqdm: bool, lora_request: LoRARequest | None = None
    ) -> list[Any]:
        assert self.awake
        FakeLLM.asked += prompts
        FakeLLM.adapters.append(lora_request)
        if lora_request:
            return self._adapted(lora_request, prompts, settings)
        return self._outputs(prompts, settings)

    def _adapted(self, request: LoRARequest, prompts: list[dict[str, Any]], settings: Any) -> list[Any]:
        assert self.settings["enable_lora"]
        base, self.model = self.model, copy.deepcopy(self.model)
        adapted = PeftModel.from_pretrained(self.model, request.lora_path)
        assert adapted.peft_config["default"].r <= self.settings["max_lora_rank"]
        outputs = self._outputs(prompts, settings)
        self.model = base
        return outputs

    def _outputs(self, prompts: list[dict[str, Any]], settings: Any) -> list[Any]:
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=self._say(each, settings))]) for each in prompts]

    def _say(self, prompt: dict[str, Any], settings: Any) -> list[int]:
        images = prompt.get("multi_modal_data", {"image": []})["image"]
        options = self.processor._merge_kwargs(return_tensors="pt")["images_kwargs"]
        tensors, texts = self.processor._process_images([images], **options) if images else ({}, [])
        mark = self.processor.tokenizer.convert_tokens_to_ids(self.processor.image_token)
        expansions = [self.processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        ids: list[int] = []
        for token in prompt["prompt_token_ids"]:
            ids += expansions.pop(0) if token == mark else [token]
        known = {name: tensor for name, tensor in tensors.items() if name in ("pixel_values", "image_sizes")}
        row = {"input_ids": torch.tensor(ids), "attention_mask": torch.ones(len(ids), dtype=torch.long), **known}
        with answering(self.model, self.processor):
            output = greedy(self.model, pad(self.processor, [row]), settings.max_tokens)
        new = output.sequences[0, len(ids) :].tolist()
        ends = [at for at, token in enumerate(new) if token in settings.stop_token_ids]
        return new[: ends[0] + 1] if ends else new


@contextmanager
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package `vllm`, for the time of a test."""
    module = ModuleType("vllm")
    module.__spec__ = importlib.machinery.ModuleSpec("vllm", None)
    module.LLM, module.SamplingParams = FakeLLM, lambda **settings: SimpleNamespace(**settings)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)
    for name in ("vllm.lora", "vllm.lora.request"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["vllm.lora.request"].LoRARequest = LoRARequest  # type: ignore[attr-defined]
    for name in ("asked", "made", "adapters", "calls"):
        monkeypatch.setattr(FakeLLM, name, [])
    yield
    close_engines()
