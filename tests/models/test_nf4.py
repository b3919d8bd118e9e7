"""Linear layers in NF4: what they hold and compute, compared with the definition in the QLoRA paper."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

from lmmcl.errors import UserError
from lmmcl.models.quantized import base_settings
from lmmcl.models.quantized.base_settings import BaseSettings
from lmmcl.models.quantized.nf4 import (
    add_beside,
    copy_beside,
    count_parameters,
    dequantize,
    nf4_layers,
    quantize_layers,
    quantized_storage,
    replace_by_linear,
)

NF4, SINGLE = BaseSettings(quantize="nf4"), BaseSettings(quantize="nf4", double_quant=False)


def codebook() -> np.ndarray:
    """Appendix E of arXiv 2305.14314: quantiles of a normal distribution, eight above 0 and seven below, and 0; the largest is 1."""
    offset = (1 - 1 / (2 * 15) + 1 - 1 / (2 * 16)) / 2
    above = norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
    below = -norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    values = np.sort(np.concatenate([above, [0.0], below]))
    return values / values.max()


def by_definition(weight: torch.Tensor) -> np.ndarray:
    """Of each block of 64 the largest magnitude as its scale, and of the scaled weights the nearest code."""
    flat = weight.to(torch.bfloat16).double().numpy().reshape(-1)
    codes, result = codebook(), np.empty_like(flat)
    for start in range(0, flat.size, 64):
        block = flat[start : start + 64]
        scale = np.abs(block).max()
        result[start : start + 64] = codes[np.abs(block[:, None] / scale - codes).argmin(1)] * scale
    return result.reshape(weight.shape)


def made_layer(rows: int, columns: int, *, bias: bool = False, dtype: torch.dtype = torch.float32) -> nn.Linear:
    layer = nn.Linear(columns, rows, bias=bias)
    draw = torch.Generator().manual_seed(rows + columns)
    layer.weight.data = 0.02 * torch.randn(rows, columns, generator=draw)
    return layer.to(dtype).requires_grad_(False)


def quantized(linear: nn.Linear, settings: BaseSettings = NF4) -> Any:
    model = nn.Sequential(linear)
    quantize_layers(model, {"0.weight": linear}, settings)
    return model[0]


@pytest.mark.parametrize("shape", [(96, 128), (24, 96), (5, 7), (33, 50)], ids=str)
def test_a_weight_is_rounded_to_the_codes_of_the_paper(shape: tuple[int, int]) -> None:
    linear = made_layer(*shape)
    expected = by_definition(linear.weight.data)
    np.testing.assert_allclose(dequantize(quantized(linear, SINGLE)).numpy(), expected, atol=1e-7)


def test_double_quantisation_moves_a_weight_by_less_than_the_rounding_of_its_scale() -> None:
    linear = made_layer(512, 256)
    single, double = dequantize(quantized(linear, SINGLE)), dequantize(quantized(linear))
    scales = linear.weight.data.bfloat16().float().reshape(-1, 64).abs().amax(1)
    around = (scales - scales.mean()).abs().reshape(-1, 256).amax(1)  # 8-bit codes of 256 scales, around their mean
    assert float((single - double).abs().max()) <= float(around.max()) / 64
    assert not torch.equal(single, double)


@pytest.mark.parametrize("settings", [NF4, SINGLE], ids=["double", "single"])
@pytest.mark.parametrize("shape", [(96, 128), (24, 96), (5, 7), (512, 256)], ids=str)
def test_a_layer_takes_as_many_bytes_as_a_plan_says(shape: tuple[int, int], settings: BaseSettings) -> None:
    layer = quantized(made_layer(*shape), settings)
    storage = quantized_storage(nn.Sequential(layer))
    assert sum(tensor.nbytes for tensor in storage.values()) == settings.layer_bytes(shape)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_multiplies_by_the_dequantised_weight_and_passes_its_gradient(dtype: torch.dtype) -> None:
    layer = quantized(made_layer(96, 128, bias=True, dtype=dtype))
    weight = dequantize(layer).to(dtype)
    x = torch.randn(3, 5, 128, generator=torch.Generator().manual_seed(0)).to(dtype)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    result, expected = layer(ours), nn.functional.linear(theirs, weight, layer.bias)
    assert torch.equal(result, expected) and result.dtype == dtype
    for each in (result, expected):
        each.float().square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_its_codes_and_scales_are_the_same_in_every_precision() -> None:
    storages = [
        quantized_storage(nn.Sequential(quantized(made_layer(96, 128, dtype=dtype))))
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert storages[0].keys() == storages[1].keys()
    assert all(torch.equal(storages[0][name], storages[1][name]) for name in storages[0])
    assert {tensor.dtype for tensor in storages[0].values()} == {torch.uint8, torch.float32}


def test_evaluation_leaves_its_storage_as_it_is_and_training_goes_on_afterwards() -> None:
    """bitsandbytes' own layer repacks its weight in place on some CPUs when it is first used in evaluation."""
    layer = quantized(made_layer(96, 128, dtype=torch.bfloat16))
    before = {name: tensor.clone() for name, tensor in quantized_storage(nn.Sequential(layer)).items()}
    x = torch.randn(2, 128, dtype=torch.bfloat16)
    layer.eval()
    with torch.no_grad():
        in_evaluation = layer(x)
    after = quantized_storage(nn.Sequential(layer))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    layer.train()
    given = x.clone().requires_grad_()
    result = layer(given)
    result.float().sum().backward()
    assert torch.equal(result, in_evaluation)
    assert given.grad is not None and bool(given.grad.any())


def test_adapters_beside_it_add_what_each_of_them_would() -> None:
    layer = quantized(made_layer(96, 128))
    x = torch.randn(4, 128, generator=torch.Generator().manual_seed(1))
    expected = layer(x)
    for rank, scale in ((4, 2.0), (2, 0.5)):
        draw = torch.Generator().manual_seed(rank)
        a, b = torch.randn(rank, 128, generator=draw), torch.randn(96, rank, generator=draw)
        add_beside(layer, a, b, scale)
        expected = expected + scale * (x @ a.T) @ b.T
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)
    assert layer.earlier_a.shape == (6, 128) and layer.earlier_b.shape == (96, 6)
    assert not layer.earlier_a.requires_grad
    other = quantized(made_layer(96, 128))
    copy_beside(layer, other)
    assert torch.equal(other(x), layer(x))


def test_a_copy_is_a_layer_of_its_own() -> None:
    layer = quantized(made_layer(96, 128))
    x = torch.randn(2, 128)
    twin = copy.deepcopy(layer)
    add_beside(twin, torch.ones(1, 128), torch.ones(96, 1), 1.0)
    twin.weight.quant_state.absmax.zero_()
    assert not torch.equal(twin(x), layer(x)) and layer.earlier_a.shape[0] == 0
    assert bool(layer.weight.quant_state.absmax.any())


def test_a_model_counts_its_parameters_as_before_and_gets_plain_layers_back() -> None:
    model = nn.Sequential(made_layer(96, 128, bias=True), made_layer(64, 96))
    total = sum(parameter.numel() for parameter in model.parameters())
    quantize_layers(model, {"0.weight": model[0]}, NF4)
    assert count_parameters(model) == total and set(nf4_layers(model)) == {"0.weight"}
    x = torch.randn(2, 128)
    before = model(x)
    replace_by_linear(model, {"0.weight": dequantize(model[0])})
    assert type(model[0]) is nn.Linear and not nf4_layers(model)
    torch.testing.assert_close(model(x), before)


def test_settings_say_what_is_wrong_and_leave_defaults_out_of_the_identity() -> None:
    assert NF4.identity() == {"quantize": "nf4"} == BaseSettings(quantize="nf4", layers=("llm.blocks",)).identity()
    assert SINGLE.describe() == "nf4 double_quant False"
    with pytest.raises(ValueError, match=r"expected a mapping such as \{quantize: nf4\}, not 'nf4'"):
        BaseSettings.model_validate("nf4")


def test_without_the_package_the_message_has_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_settings, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'needs the package bitsandbytes.*pip install "lmmcl\[bitsandbytes\]"'):
        quantized(made_layer(8, 8))
