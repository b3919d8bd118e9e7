#!/usr/bin/env bash
# peft 0.21.2 with transformers 5.24.0 reads nothing of a LoRA adapter of Qwen2.5-VL that was saved with transformers 4.49, where
# the language model's modules were named `model.layers.N` (today `model.language_model.layers.N`): `PeftModel.from_pretrained`
# warns of missing keys, and the model computes what the base does. The same kind of adapter of LLaVA (`language_model.model.layers.N`
# then) is read. transformers itself loads whole checkpoints of both under the older names.
# Exits with 0 while this is so, with 1 when it changed.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q torch==2.13.0 transformers==5.24.0 peft==0.21.2 pillow
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - <<'P'
import sys, warnings
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForImageTextToText

text = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=64)
rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
CONFIGS = {
    "qwen2_5_vl": dict(
        text_config=dict(text, rope_parameters=rope),
        vision_config=dict(depth=1, hidden_size=16, intermediate_size=32, num_heads=2, out_hidden_size=32),
    ),
    "llava": dict(
        text_config=dict(text, model_type="llama"),
        vision_config=dict(model_type="clip_vision_model", hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                           num_attention_heads=2, image_size=16, patch_size=8),
        image_token_index=63,
    ),
}
OLD = {"qwen2_5_vl": "model.layers.", "llava": "language_model.model.layers."}


def changed(kind):
    """How much the adapter changes the logits, under the names of today and under the older ones."""
    def base():
        torch.manual_seed(0)
        return AutoModelForImageTextToText.from_config(AutoConfig.for_model(kind, **CONFIGS[kind])).eval()

    tuned = get_peft_model(base(), LoraConfig(r=2, target_modules=r".*language_model.*\.q_proj"))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    tuned.save_pretrained(kind)
    tensors, ids = load_file(f"{kind}/adapter_model.safetensors"), torch.arange(5)[None]
    found = []
    for old in (False, True):
        renamed = {n.replace("model.language_model.layers.", OLD[kind]) if old else n: t for n, t in tensors.items()}
        assert (renamed != tensors) == old
        save_file(renamed, f"{kind}/adapter_model.safetensors")
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            loaded = PeftModel.from_pretrained(base(), kind).eval()
            found.append(float((loaded(input_ids=ids).logits - base()(input_ids=ids).logits).abs().max()))
    return found


qwen, llava = changed("qwen2_5_vl"), changed("llava")
print("the adapter changes the logits, under names of today and older ones: Qwen2.5-VL", qwen, "LLaVA", llava)
sys.exit(not (qwen[0] > 0 and qwen[1] == 0 and llava[0] > 0 and llava[1] == llava[0]))
P
