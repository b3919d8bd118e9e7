#!/usr/bin/env bash
# bitsandbytes 0.50.2 with torch 2.13.0, on a CPU with AVX512-BF16: the first forward pass of a Linear4bit in evaluation, without a
# gradient, rewrites its weight in place (another packing, double-quantised scales turned into bf16) and does not undo it. Back in
# training mode the layer answers, but passes a gradient of zero (or none) to what lies before it: a QLoRA model that was evaluated
# once trains only the adapters above its last quantised layer, with a warning of autograd at most. Guessed before: evaluation changes
# nothing, and training after it is as before.
# Seen: norm of the input's gradient   before 12.8   after one evaluation 0.0   weight rewritten True
# Exits with 0 while this is so, with 1 when it changed (or the CPU has no AVX512-BF16).
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q torch==2.13.0 numpy bitsandbytes==0.50.2
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import torch
from bitsandbytes.nn import Linear4bit

torch.manual_seed(0)
layer = Linear4bit(128, 128, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
layer.to("cpu")
before = layer.weight.data.clone()


def gradient():
    """The norm of the gradient that the layer passes to its input, in training mode."""
    layer.train()
    x = torch.ones(2, 128, dtype=torch.bfloat16, requires_grad=True)
    result = layer(x)
    if not result.requires_grad:
        return 0.0
    result.float().square().sum().backward()
    return 0.0 if x.grad is None else float(x.grad.float().norm())


first = gradient()
layer.eval()
with torch.no_grad():
    layer(torch.ones(2, 128, dtype=torch.bfloat16))
second = gradient()
rewritten = layer.weight.shape != before.shape or not torch.equal(layer.weight.data, before)
print(f"norm of the input's gradient   before {first:.1f}   after one evaluation {second:.1f}   weight rewritten {rewritten}")
raise SystemExit(0 if rewritten and first > 0 and second == 0 else 1)
P
