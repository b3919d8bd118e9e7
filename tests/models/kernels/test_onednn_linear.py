"""Linear layers by oneDNN: the bits of PyTorch's own, in training and in answers, and PyTorch's own wherever that is not sure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_parts import stage
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lmmcl.config.cluster import Cluster
from lmmcl.ledger import Ledger
from lmmcl.models.kernels import onednn_linear
from lmmcl.models.kernels.onednn_linear import is_exact, is_intel, is_worthwhile, onednn_linears
from lmmcl.runner.execute import compute

PLAIN = functional.linear


@pytest.fixture
def worthwhile() -> Iterator[None]:
    """One thread, on a CPU where oneDNN is faster and has the same bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    if not is_worthwhile() or not is_exact(384, 96):
        pytest.skip("MKL is the faster one here, or has other bits")
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of the rows that oneDNN has multiplied."""
    shapes: list[tuple[int, ...]] = []
    original = onednn_linear.row_products

    def counted(rows: Tensor, *more: Any) -> Tensor:
        shapes.append(tuple(rows.shape))
        return original(rows, *more)

    monkeypatch.setattr(onednn_linear, "row_products", counted)
    return shapes


def computed(rows: Tensor, weight: Tensor, bias: Tensor | None) -> list[Tensor | None]:
    """A layer's result, and the gradients of what requires some."""
    leaves = [
        None if one is None else one.detach().clone().requires_grad_(one.requires_grad) for one in (rows, weight, bias)
    ]
    result = functional.linear(*leaves)  # type: ignore[arg-type]
    if result.requires_grad:
        result.backward(torch.linspace(-1, 1, result.numel()).view_as(result))
    return [result.detach(), *(None if leaf is None else leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("trained", ["all", "weight", "rows", "none"])
@pytest.mark.parametrize("shape", [(480,), (16, 30), (4, 4, 30)], ids=str)
@pytest.mark.parametrize(
    ("outputs", "inputs", "has_bias"), [(96, 96, True), (384, 96, False), (96, 384, False), (96, 384, True)]
)
@pytest.mark.usefixtures("worthwhile")
def test_results_and_gradients_have_the_same_bits(
    outputs: int, inputs: int, has_bias: bool, shape: tuple[int, ...], trained: str, products: list[tuple[int, ...]]
) -> None:
    rows = torch.randn(*shape, inputs, requires_grad=trained in ("all", "rows"))
    weight = torch.randn(outputs, inputs, requires_grad=trained in ("all", "weight"))
    bias = torch.randn(outputs, requires_grad=trained in ("all", "weight")) if has_bias else None
    before = computed(rows, weight, bias)
    assert not products
    with onednn_linears():
        after = computed(rows, weight, bias)
    assert len(products) == 1 + rows.requires_grad
    for one, other in zip(before, after, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "left",
    [
        lambda rows, weight: functional.linear(rows[:63], weight),
        lambda rows, weight: functional.linear(rows[:96], weight),
        lambda rows, weight: functional.linear(rows.double(), weight.double()),
        lambda rows, weight: functional.linear(rows.bfloat16(), weight.bfloat16()),
        lambda rows, weight: functional.linear(rows.view(16, 30, 96)[:, :20], weight),
        lambda rows, weight: functional.linear(rows, weight.t().contiguous().t()),
        lambda rows, weight: functional.linear(rows[0], weight),
        lambda rows, weight: functional.linear(rows, weight, weight[0, :1]),
    ],
    ids=[
        "few rows",
        "little work",
        "doubles",
        "halves",
        "rows apart",
        "a transposed weight",
        "a vector",
        "a bias for all",
    ],
)
@pytest.mark.usefixtures("worthwhile")
def test_what_it_does_not_take_is_left_to_pytorch(
    left: Callable[[Tensor, Tensor], Tensor], products: list[tuple[int, ...]]
) -> None:
    rows, weight = torch.randn(480, 96), torch.randn(384, 96)
    with onednn_linears():
        inside = left(rows, weight)
    assert torch.equal(inside, left(rows, weight)) and not products


@pytest.mark.usefixtures("worthwhile")
def test_autocast_and_a_switched_off_onednn_are_respected(products: list[tuple[int, ...]]) -> None:
    rows, weight = torch.randn(480, 96), torch.randn(384, 96)
    with onednn_linears():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert functional.linear(rows, weight).dtype == torch.bfloat16
        with torch.backends.mkldnn.flags(enabled=False):
            functional.linear(rows, weight)
    assert not products


@pytest.mark.usefixtures("worthwhile")
def test_a_trial_with_other_bits_leaves_all_to_pytorch(
    monkeypatch: pytest.MonkeyPatch, products: list[tuple[int, ...]]
) -> None:
    monkeypatch.setattr(onednn_linear, "has_mkl_order", lambda *sizes: False)
    with onednn_linears():
        functional.linear(torch.randn(480, 96), torch.randn(384, 96))
    assert not products


@pytest.mark.usefixtures("worthwhile")
def test_more_shapes_than_onednn_keeps_programs_for_are_left(
    monkeypatch: pytest.MonkeyPatch, products: list[tuple[int, ...]]
) -> None:
    monkeypatch.setattr(onednn_linear, "_shapes", set())
    monkeypatch.setattr(onednn_linear, "MOST_SHAPES", 2)
    weight = torch.randn(384, 96)
    with onednn_linears():
        for count in (480, 496, 512, 480):
            functional.linear(torch.randn(count, 96), weight)
    assert [rows for rows, _ in products] == [480, 496, 480]


def test_pytorchs_function_is_back_at_the_end_also_of_one_inside_another() -> None:
    with onednn_linears():
        with onednn_linears():
            pass
        inside = functional.linear
    assert functional.linear is PLAIN
    assert (inside is not PLAIN) == is_worthwhile()
    with pytest.raises(RuntimeError, match="broken"), onednn_linears():
        raise RuntimeError("broken")
    assert functional.linear is PLAIN


def test_a_function_that_somebody_else_put_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def theirs(*arguments: Any) -> Tensor:
        return PLAIN(*arguments)

    monkeypatch.setattr(functional, "linear", theirs)
    with onednn_linears():
        assert functional.linear is theirs
    assert functional.linear is theirs


@pytest.mark.usefixtures("worthwhile")
def test_a_function_that_was_there_before_the_first_step_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    onednn_linear._replacement.cache_clear()
    calls = []

    def theirs(*arguments: Any) -> Tensor:
        calls.append(arguments)
        return PLAIN(*arguments)

    monkeypatch.setattr(functional, "linear", theirs)
    with onednn_linears():
        functional.linear(torch.randn(480, 96), torch.randn(384, 96))
    assert len(calls) == 1
    monkeypatch.undo()
    with onednn_linears():
        assert functional.linear is not PLAIN
    assert functional.linear is PLAIN


@pytest.mark.usefixtures("worthwhile")
def test_a_mode_that_watches_pytorchs_functions_sees_linear_layers(products: list[tuple[int, ...]]) -> None:
    seen = []

    class Watching(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(function)
            return function(*args, **(kwargs or {}))

    rows, weight = torch.randn(480, 96), torch.randn(384, 96)
    with onednn_linears(), Watching():
        functional.linear(rows, weight)
    assert PLAIN in seen and not products


@pytest.mark.parametrize(("inputs", "bias"), [(192, 384), (384, 384), (96, 96)])
@pytest.mark.usefixtures("worthwhile")
def test_sizes_that_do_not_fit_are_pytorchs_error(inputs: int, bias: int) -> None:
    with onednn_linears(), pytest.raises(RuntimeError, match=r"shapes cannot be multiplied|must match"):
        functional.linear(torch.randn(480, inputs), torch.randn(384, 96), torch.randn(bias))


@pytest.mark.usefixtures("worthwhile")
def test_gradients_of_gradients_and_functional_calls_are_those_of_pytorch() -> None:
    rows, weight = torch.randn(480, 96, requires_grad=True), torch.randn(384, 96, requires_grad=True)

    def twice() -> Tensor:
        (first,) = torch.autograd.grad(functional.linear(rows, weight).pow(2).sum(), rows, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(2).sum(), weight)
        return second

    def through(values: Tensor) -> Tensor:
        return functional.linear(values, weight).sum()

    before = twice(), torch.func.grad(through)(rows)
    with onednn_linears():
        after = twice(), torch.func.grad(through)(rows)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_a_processor_is_intels_where_linux_says_so_or_says_nothing(tmp_path: Path) -> None:
    description = tmp_path / "cpuinfo"
    assert is_intel(description)
    description.write_text("processor\t: 0\nvendor_id\t: GenuineIntel\n")
    assert is_intel(description)
    description.write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")
    assert is_intel(description)


@pytest.mark.skipif(onednn_linear.platform.system() != "Linux", reason="the description is Linux's")
def test_another_vendor_is_not_intel(tmp_path: Path) -> None:
    description = tmp_path / "cpuinfo"
    description.write_text("processor\t: 0\nvendor_id\t: AuthenticAMD\n")
    assert not is_intel(description)


@pytest.mark.usefixtures("worthwhile")
def test_a_stage_learns_the_same_with_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, products: list[tuple[int, ...]]
) -> None:
    digests = []
    for name in ("onednn", "mkl"):
        if name == "mkl":
            assert products
            monkeypatch.setattr(onednn_linear, "is_worthwhile", lambda: False)
            products.clear()
        step, ledger = stage(recipe="llm", max_steps=3), Ledger(str(tmp_path / name))
        for needed in (*step.parents, step):
            compute([needed], ledger, Cluster(), lambda key, note: None)
        record = ledger.find(step)
        assert record is not None
        digests.append((record.files["delta.safetensors"]["sha256"], record["loss"]))
    assert not products
    assert digests[0] == digests[1]
