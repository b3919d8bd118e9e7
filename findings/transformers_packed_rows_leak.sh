#!/usr/bin/env bash
# transformers 5.24.0 with torch 2.13.0: rows packed into one, with positions that begin again and no mask, are kept apart as long as
# no cache of keys and values is built. `TrainingArguments.use_cache` is False by default, and the Trainer writes it to
# `model.config.use_cache`; but Qwen2.5-VL's language model reads the configuration of the text, which still says True. So each training
# pass builds a cache, the packed rows are not looked for, and a row sees the one before it, without any warning. LLaVA-OneVision
# passes the outer value on and is right. Guessed before: no difference, for the Trainer switches the cache off.
# Seen, as the largest change of the second row's logits when a token of the first is changed:
#   as the Trainer leaves it 0.1255   with use_cache=False in the call 0.0000
# Exits with 0 while this is so, with 1 when it changed.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q torch==2.13.0 transformers==5.24.0 accelerate==1.15.0
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Trainer, TrainingArguments

torch.manual_seed(0)
text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}
vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32}
model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))
arguments = TrainingArguments(output_dir="out", use_cpu=True, report_to="none")
Trainer(model=model, args=arguments, train_dataset=[])
print("use_cache:", arguments.use_cache, model.config.use_cache, model.config.text_config.use_cache)

first, rows = torch.randint(1000, 2000, (1, 6)), []
second = torch.randint(1000, 2000, (1, 6))
positions = torch.cat([torch.arange(6), torch.arange(6)])[None, None].expand(4, 1, 12)
other = first.clone()
other[0, 2] = 2500
model.train()


def second_moves(**more):
    with torch.no_grad():
        one, two = (
            model(input_ids=torch.cat([row, second], dim=1), position_ids=positions, **more).logits[0, 6:] for row in (first, other)
        )
    return float((one - two).abs().max())


left, off = second_moves(), second_moves(use_cache=False)
print(f"as the Trainer leaves it {left:.4f}   with use_cache=False in the call {off:.4f}")
raise SystemExit(0 if left > 1e-3 and off < 1e-6 else 1)
P
