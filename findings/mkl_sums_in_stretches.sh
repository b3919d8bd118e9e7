#!/usr/bin/env bash
# torch 2.13.0 (MKL 2024.2, oneDNN 3.12) on an AMD EPYC with AVX-512, one thread, fp32. Two libraries multiply matrices here: MKL, which
# `linear` calls, and oneDNN, which only compiled code calls; MKL leaves AVX-512 unused on a processor that is not Intel's. Guessed
# before: two libraries round differently, so the faster one cannot be had without other weights at the end of a training. They do not:
# 1. up to 192 terms to a sum, all bits of the products are the same, whatever the number of rows;
# 2. longer sums MKL makes of stretches: 192 terms, again 192, …, the rest, whose sums it adds in this order; of 193 to 383 terms (an
#    even number) it makes two halves. oneDNN sums all terms at once and has other bits; called once a stretch it has MKL's. It is so
#    forwards (terms: the inputs) and for the gradient of a weight (terms: the rows of the batch);
# 3. oneDNN takes less than two thirds of MKL's time; but a weight that is a column slice of a wider one costs it over 100 times as much
#    as a contiguous copy of the slice, and it does not say so.
# Seen: same bits: 96 terms True, 384 terms at once False, 384 terms in stretches True, 1000 terms in stretches True, gradient of 480
#       rows True; time of oneDNN / MKL 0.45; slice / copy 2153
# Exits with 0 while this is so, with 1 when it changed; with 0 and a word where the processor is Intel's or has no AVX-512.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install -q torch==2.13.0 numpy
cd "$folder"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'P'
import time
from pathlib import Path

import torch

torch.manual_seed(0)
torch.set_num_threads(1)
vendor = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("vendor_id")), "")
if "GenuineIntel" in vendor or torch.backends.cpu.get_cpu_capability() != "AVX512":
    print("not seen here: the processor is Intel's or has no AVX-512")
    raise SystemExit(0)


def onednn(rows, weight):
    return torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")


def stretches(terms):
    if 192 < terms < 384:
        return [(0, terms // 2), (terms // 2, terms)]
    return [(begin, min(begin + 192, terms)) for begin in range(0, terms, 192)]


def in_stretches(rows, weight):
    total = 0
    for begin, end in stretches(rows.shape[1]):
        total = total + onednn(rows[:, begin:end].contiguous(), weight[:, begin:end].contiguous())
    return total


def seconds(function, times):
    function()
    begun = time.process_time()
    for _ in range(times):
        function()
    return (time.process_time() - begun) / times


def matrices(terms, rows=960, columns=96):
    return torch.randn(rows, terms), torch.randn(columns, terms)


short, half, long = matrices(96), matrices(384), matrices(1000)
linear = torch.nn.functional.linear
grad, values = torch.randn(480, 384), torch.randn(480, 96)
same = {
    "96 terms": torch.equal(onednn(*short), linear(*short)),
    "384 terms at once": torch.equal(onednn(*half), linear(*half)),
    "384 terms in stretches": torch.equal(in_stretches(*half), linear(*half)),
    "1000 terms in stretches": torch.equal(in_stretches(*long), linear(*long)),
    "gradient of 480 rows": torch.equal(in_stretches(grad.t().contiguous(), values.t().contiguous()), grad.t().mm(values)),
}
rows, weight = half
copy = weight[:, :192].contiguous()
faster = seconds(lambda: onednn(*half), 50) / seconds(lambda: linear(*half), 50)
part = rows[:, :192].contiguous()
slower = seconds(lambda: onednn(part, weight[:, :192]), 2) / seconds(lambda: onednn(part, copy), 50)
print("same bits:", same)
print(f"time of oneDNN / MKL {faster:.2f}; slice / copy {slower:.0f}")
wanted = [True, False, True, True, True]
raise SystemExit(0 if list(same.values()) == wanted and faster < 0.67 and slower > 100 else 1)
P
