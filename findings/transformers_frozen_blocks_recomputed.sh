#!/usr/bin/env bash
# transformers 5.24.0 with torch 2.13.0: activation checkpointing without `use_reentrant` needs no gradient at the input of a block.
# `activation_checkpointing_enable` nevertheless lets the outputs of all input embeddings require one (of text, and of image patches), for
# every model whose main input is `input_ids`, PEFT or not. With frozen blocks below the lowest that trains, these then keep their
# inputs, are computed again, and pass gradients back to embeddings that learn nothing; a frozen vision tower too. Guessed before: only
# the block that trains is computed twice. `disable_input_require_grads()` afterwards gives that.
# Seen, as the blocks that run when the last of four trains:
#   checkpointing [0, 1, 2, 3, 3, 2, 1, 0]   and then disable_input_require_grads() [0, 1, 2, 3, 3]
# Exits with 0 while this is so, with 1 when it changed.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q torch==2.13.0 transformers==5.24.0
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

torch.manual_seed(0)
sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 2}
model = Qwen2ForCausalLM(Qwen2Config(**sizes)).train()
model.requires_grad_(False)
model.model.layers[3].requires_grad_(True)
runs = []
for number, block in enumerate(model.model.layers):
    block.input_layernorm.register_forward_hook(lambda *_, number=number: runs.append(number))


def blocks_run():
    runs.clear()
    model(input_ids=torch.arange(8)[None], use_cache=False).logits.sum().backward()
    return list(runs)


model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
on = blocks_run()
model.disable_input_require_grads()
after = blocks_run()
print("checkpointing", on, "  and then disable_input_require_grads()", after)
raise SystemExit(0 if on == [0, 1, 2, 3, 3, 2, 1, 0] and after == [0, 1, 2, 3, 3] else 1)
P
