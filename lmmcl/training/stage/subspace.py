"""The singular directions that OSF preserves: updates are projected off them, and what leaked into them is measured.

PEFT projects gradients alone. AdamW divides each entry by its own scale, so that its updates point into the preserved
directions again; projecting what was updated takes that out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmmcl.training.stage.adapter_names import ADAPTER_NAME

LARGEST_LEAK = 1e-4
"""Share of a layer's change that may lie in preserved directions; beyond, something else has written into the factors."""
ROUNDING = 1e-6
"""Of the trained part of a layer: what rounding alone puts there, however little it has moved."""


class Subspaces:
    """The preserved directions of all adapted layers: OSF layers of PEFT by the names of their weights.

    U (outputs × rank) and V (rank × inputs) of what trains stay orthogonal to the preserved singular vectors. PEFT keeps
    these where their complement is larger than the trained factor; where it is just that, the factor's own start says the same.
    """

    def __init__(self, layers: Mapping[str, Any]) -> None:
        self._layers = layers
        for layer in layers.values():
            _orthogonalise(layer)

    @torch.no_grad()
    def project(self) -> None:
        """Take out of the trained factors what lies in preserved directions."""
        for layer in self._layers.values():
            factors = layer.osf_svd_params[ADAPTER_NAME]
            for name, own in (("U", factors["U_low"]), ("V", factors["V_low"].T)):
                basis, is_preserved = _basis(layer, name)
                inside = basis @ (basis.T @ own)
                own.sub_(inside) if is_preserved else own.copy_(inside)

    @torch.no_grad()
    def merge(self) -> Leaks:
        """Add what the layers have learnt to their weights, in doubles and without its preserved part; how much that was.

        Beside the rounding of factors it should be nothing. Raises ValueError, which names weights, where it is more.
        """
        leaks = {}
        for name, layer in self._layers.items():
            change, scale = _change(layer)
            exact = _allowed(layer, "V", _allowed(layer, "U", change).T).T
            leaks[name] = Leak(
                _preserved_share(layer, exact), _preserved_share(layer, change), float(change.norm()) / scale
            )
            weight = layer.get_base_layer().weight
            weight.data = (weight.data.double() + exact).to(weight.dtype)
        if wrong := [name for name, leak in leaks.items() if leak.is_excessive]:
            raise ValueError(f"{len(wrong)} layers changed in directions that osf preserves: {', '.join(wrong[:3])}")
        if wrong := [
            name for name, layer in self._layers.items() if not bool(layer.get_base_layer().weight.isfinite().all())
        ]:
            raise ValueError(f"merging its adapter makes {wrong[0]} infinite or NaN")
        return Leaks(leaks)


@dataclass(frozen=True)
class Leak:
    """Of one layer: ‖preserved part of ΔW‖ / ‖ΔW‖, the larger of left and right, of the change that is `merged` and of that of
    the `factors` as they were trained; and how far it `moved`, ‖ΔW‖ / ‖trained part of W‖."""

    merged: float
    factors: float
    moved: float

    @property
    def is_excessive(self) -> bool:
        """Whether it is more than rounding puts there."""
        return self.factors > LARGEST_LEAK and self.factors * self.moved > ROUNDING


@dataclass(frozen=True)
class Leaks:
    """The leaks of all layers, by the names of their weights."""

    by_weight: Mapping[str, Leak]

    def fields(self) -> dict[str, float]:
        """For the record: the largest of all layers."""
        return {
            "leak": max((leak.merged for leak in self.by_weight.values()), default=0.0),
            "leak_of_factors": max((leak.factors for leak in self.by_weight.values()), default=0.0),
        }


def _basis(layer: Any, factor: str) -> tuple[Tensor, bool]:
    """Orthonormal columns, and whether they span what is preserved (else all that may train)."""
    preserved = layer._osf_U_high if factor == "U" else layer._osf_V_high
    if ADAPTER_NAME in preserved:
        basis = preserved[ADAPTER_NAME]
        return (basis if factor == "U" else basis.T), True
    start = layer._osf_U_low_init[ADAPTER_NAME] if factor == "U" else layer._osf_V_low_init[ADAPTER_NAME].T
    return start, False


def _orthogonalise(layer: Any) -> None:
    """Make bases and start orthonormal beyond what a decomposition in fp32 gives; the layer computes what it did.

    The change is the trained product less its start, so that both may begin from any basis of the same directions.
    """
    factors = layer.osf_svd_params[ADAPTER_NAME]
    with torch.no_grad():
        for name, stored in (("U", layer._osf_U_high), ("V", layer._osf_V_high)):
            basis, is_preserved = _basis(layer, name)
            exact = _orthonormal(basis)
            own = factors["U_low"] if name == "U" else factors["V_low"].T
            start = exact
            if is_preserved:
                kept = exact.to(basis.dtype)
                stored[ADAPTER_NAME] = (kept if name == "U" else kept.T).contiguous()
                outside = own.double() - exact @ (exact.T @ own.double())
                start = _orthonormal(outside)
            own.copy_(start)
            init = layer._osf_U_low_init if name == "U" else layer._osf_V_low_init
            init[ADAPTER_NAME] = (own if name == "U" else own.T).detach().clone().contiguous()


def _orthonormal(columns: Tensor) -> Tensor:
    """An orthonormal basis of nearly orthonormal columns, each near its own, in doubles."""
    basis, upper = torch.linalg.qr(columns.double())
    return basis * upper.diagonal().sign()


def _change(layer: Any) -> tuple[Tensor, float]:
    """(ΔW, the norm of the trained part of W at the start), in doubles."""
    factors = layer.osf_svd_params[ADAPTER_NAME]
    after, before = (
        (u.double() * s.double()) @ v.double()
        for u, s, v in (
            (factors["U_low"], factors["S_low"], factors["V_low"]),
            (
                layer._osf_U_low_init[ADAPTER_NAME],
                layer._osf_S_low_init[ADAPTER_NAME],
                layer._osf_V_low_init[ADAPTER_NAME],
            ),
        )
    )
    return after - before, float(before.norm()) or 1.0


def _allowed(layer: Any, factor: str, change: Tensor) -> Tensor:
    """The part of a change (of its transpose, for V) outside preserved directions."""
    basis, is_preserved = _basis(layer, factor)
    exact = _orthonormal(basis)
    inside = exact @ (exact.T @ change)
    return change - inside if is_preserved else inside


def _preserved_share(layer: Any, change: Tensor) -> float:
    size = float(change.norm())
    parts = (change - _allowed(layer, "U", change), change.T - _allowed(layer, "V", change.T))
    return max(float(part.norm()) for part in parts) / size if size else 0.0


def layers_of(model: Any, targets: Iterable[str]) -> dict[str, Any]:
    """The adapted layers of a model by the names of their weights."""
    return {name: model.get_submodule(name.rpartition(".")[0]) for name in targets}
