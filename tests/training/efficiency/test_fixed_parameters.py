"""The parameters of a model that trains are listed once, and as the model lists them."""

from __future__ import annotations

import torch
from torch import nn

from lmmcl.training.efficiency.fixed_parameters import fixed_parameters


def test_parameters_are_those_of_the_model_in_its_order_and_no_module_is_walked(monkeypatch) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    own = list(model.parameters())
    with fixed_parameters(model):
        monkeypatch.setattr(nn.Module, "named_modules", lambda *_, **__: 1 / 0)
        assert [id(one) for one in model.parameters()] == [id(one) for one in own]
        model(torch.ones(1, 2)).sum().backward()
        model.zero_grad()
        assert all(one.grad is None for one in own)
        monkeypatch.undo()
        assert list(model.parameters(recurse=False)) == []
    model.add_module("more", nn.Linear(1, 1))
    assert len(list(model.parameters())) == len(own) + 2


def test_a_model_that_is_divided_lists_them_itself() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    with fixed_parameters(model, applies=False):
        model.add_module("more", nn.Linear(3, 1))
        assert len(list(model.parameters())) == 4
