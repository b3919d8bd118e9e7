#!/usr/bin/env bash
# bitsandbytes 0.50.2 with torch 2.13.0, on a CPU with AVX-512: a weight in NF4 whose rows are not whole blocks of 64 (4304 inputs, as
# the second layer of each MLP of SigLIP-so400m has) comes back wrong from `dequantize_4bit`, and so from Linear4bit's forward, without
# an error or a warning. The codes and scales are right: the same packed weight, dequantised as one long row, is within the rounding
# of NF4. Guessed before: the shape decides nothing but the shape of the result.
# Seen, as the largest error of a weight of standard normal numbers:
#   4304 inputs   as rows 2.6023   as one row 0.5673
#   4352 inputs   as rows 0.5673   as one row 0.5673
# Exits with 0 while this is so, with 1 when it changed (or the CPU has no AVX-512).
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q torch==2.13.0 numpy bitsandbytes==0.50.2
cd "$folder"
"$folder/venv/bin/python" - <<'P'
import copy

import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit


def errors(inputs):
    """The largest error of a weight dequantised in its own shape, and as one row."""
    weight = torch.randn(64, inputs, generator=torch.Generator().manual_seed(0))
    packed, state = quantize_4bit(weight, quant_type="nf4")
    flat = copy.copy(state)
    flat.shape = torch.Size((1, weight.numel()))
    as_rows, as_one = dequantize_4bit(packed, state), dequantize_4bit(packed, flat).reshape(weight.shape)
    return tuple(float((value - weight).abs().max()) for value in (as_rows, as_one))


found = {inputs: errors(inputs) for inputs in (4304, 4352)}
for inputs, (as_rows, as_one) in found.items():
    print(f"{inputs} inputs   as rows {as_rows:.4f}   as one row {as_one:.4f}")
wrong = found[4304][0] > 2 * found[4304][1]
raise SystemExit(0 if wrong and found[4352][0] == found[4352][1] else 1)
P
