"""Model Tailor on one layer: what returns returns exactly, and the rest makes up for it as well as it can."""

from __future__ import annotations

import pytest
import torch

from lmmcl.methods.merging.tailor_layer import (
    Tailored,
    choose,
    damp,
    exact,
    inverse_factor,
    loss,
    obs,
    obs_by_block,
    tailor,
)

INPUTS, OUTPUTS, POSITIONS, KEEP = 160, 24, 400, 0.1


def made_layer(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """W0, W1, X with correlated inputs of unlike scale."""
    random = torch.Generator().manual_seed(seed)
    before = torch.randn(OUTPUTS, INPUTS, generator=random) * 0.1
    after = before + torch.randn(OUTPUTS, INPUTS, generator=random) * 0.02
    mixing = torch.randn(INPUTS, INPUTS, generator=random) * 0.3 + torch.diag(torch.rand(INPUTS, generator=random) * 3)
    return before.to(dtype), after.to(dtype), mixing @ torch.randn(INPUTS, POSITIONS, generator=random)


def second_moment(inputs: torch.Tensor) -> torch.Tensor:
    return 2 / inputs.shape[1] * inputs.double() @ inputs.double().T


def tailored(seed: int = 0, dtype: torch.dtype = torch.float32, **settings: object) -> Tailored:
    before, after, inputs = made_layer(seed, dtype)
    options: dict = {"keep": KEEP, "salience": 0.5, "damping": 0.01, "compensation": "obs", "granularity": "row"}
    return tailor(before, after, second_moment(inputs), **{**options, **settings})


@pytest.mark.parametrize("granularity", ["row", "block128", "layer"])
@pytest.mark.parametrize("compensation", ["none", "obs", "exact"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_more_than_the_share_changes_and_the_rest_has_the_old_bits(
    granularity: str, compensation: str, dtype: torch.dtype
) -> None:
    before, after, _ = made_layer(dtype=dtype)
    done = tailored(dtype=dtype, granularity=granularity, compensation=compensation)
    changed = done.weight != before
    assert 0 < changed.sum() <= done.mask.sum() <= KEEP * before.numel()
    assert torch.equal(done.weight[~done.mask], before[~done.mask])
    if compensation == "none":
        assert torch.equal(done.weight[done.mask], after[done.mask])


@pytest.mark.parametrize("seed", range(5))
def test_exact_rows_beat_the_sweep_and_the_sweep_beats_the_mask_alone(seed: int) -> None:
    before, after, inputs = made_layer(seed)
    error = {}
    for compensation in ("none", "obs", "exact"):
        weight = tailored(seed, compensation=compensation).weight
        error[compensation] = ((weight - after).double() @ inputs.double()).norm()
    assert error["exact"] < error["obs"] < error["none"]
    assert error["none"] < ((before - after) @ inputs).norm(), "even the mask alone is nearer than no fine-tune"


@pytest.mark.parametrize("compensation", ["obs", "exact"])
@pytest.mark.parametrize("granularity", ["row", "block128", "layer"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.95])
def test_no_rows_output_is_further_from_the_fine_tunes_than_with_the_mask_alone(
    compensation: str, granularity: str, dtype: torch.dtype, keep: float
) -> None:
    before, after, inputs = made_layer(3, dtype)
    done = tailored(3, dtype, compensation=compensation, granularity=granularity, keep=keep)
    masked = torch.where(done.mask, after, before)
    errors, alone = (((weight - after).double() @ inputs.double()).norm(dim=1) for weight in (done.weight, masked))
    assert (errors <= alone * (1 + 1e-6)).all()


def test_the_opposite_sign_would_be_worse_than_the_mask_alone() -> None:
    before, after, inputs = made_layer()
    done = tailored()
    masked = torch.where(done.mask, after, before)
    opposite = masked - (done.weight - masked)
    assert ((opposite - after) @ inputs).norm() > ((masked - after) @ inputs).norm()


def test_the_factor_holds_the_inverse_of_what_is_left_of_h() -> None:
    hessian = damp(second_moment(made_layer()[2]), 0.01)[:40, :40]
    upper = inverse_factor(hessian)
    torch.testing.assert_close(upper.T @ upper, torch.linalg.inv(hessian))
    assert torch.equal(upper, upper.triu())
    for j in range(40):
        torch.testing.assert_close(upper[j, j].square(), torch.linalg.inv(hessian[j:, j:])[0, 0])


def test_exact_rows_solve_the_least_squares_problem() -> None:
    before, after, inputs = (tensor.double() for tensor in made_layer())
    mask = torch.rand(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(1)) < 0.3
    patched = exact(before, after, mask, second_moment(inputs))
    for row in range(OUTPUTS):
        kept = mask[row]
        lost = (after[row] - before[row])[~kept] @ inputs[~kept]
        made_up = torch.linalg.lstsq(inputs[kept].T, lost).solution
        torch.testing.assert_close(patched[row, kept], after[row, kept] + made_up, rtol=1e-6, atol=1e-8)
        assert torch.equal(patched[row, ~kept], before[row, ~kept])


def test_the_sweep_is_the_update_of_one_entry_after_the_other() -> None:
    before, after, inputs = (tensor.double() for tensor in made_layer())
    hessian = damp(second_moment(inputs), 0.01)
    mask = torch.rand(2, INPUTS, generator=torch.Generator().manual_seed(1)) < 0.3
    swept = obs(before[:2], after[:2], mask, inverse_factor(hessian))
    for row in range(2):
        work = after[row].clone()
        for j in (~mask[row]).nonzero().reshape(-1).tolist():
            column = torch.linalg.inv(hessian[j:, j:])[:, 0]  # what is left to move: the entries from j on
            work[j:] -= (work[j] - before[row, j]) / column[0] * column
        torch.testing.assert_close(swept[row, mask[row]], work[mask[row]])


def published(
    before: torch.Tensor, after: torch.Tensor, upper: torch.Tensor, keep: float, salience: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The block mode of the authors' script entry by entry, with the sign of the compensation that lowers the error.

    Model-Tailor, llava/train/sparsegpt.py, fasterprune (e24dafe): `importance_score` of 128 columns with means and standard
    deviations of each row, of what moved in the fine-tune and of weights that were compensated by the columns before; one
    threshold over all rows.
    """
    work, kept = after.clone(), torch.zeros_like(after, dtype=torch.bool)
    for start in range(0, after.shape[1], 128):
        end = min(start + 128, after.shape[1])
        moved, weights = (after - before).abs()[:, start:end], work[:, start:end]
        sensitive = weights**2 / upper.diagonal()[start:end] ** 2
        z = [(each - each.mean(1, keepdim=True)) / each.std(1, keepdim=True) for each in (moved, sensitive)]
        score = salience * z[0] + (1 - salience) * z[1]
        threshold = score.flatten().sort().values[-int(keep * score.numel())]
        kept[:, start:end] = score >= threshold
        for column in range(start, end):
            change = torch.where(kept[:, column], 0, work[:, column] - before[:, column])
            work[:, column:] -= torch.outer(change / upper[column, column], upper[column, column:])
    return kept, torch.where(kept, work, before)


@pytest.mark.parametrize("salience", [0.8, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_blocks_of_128_columns_are_chosen_as_the_authors_choose_them(seed: int, salience: float) -> None:
    before, after, inputs = (tensor.double() for tensor in made_layer(seed))
    upper = inverse_factor(damp(second_moment(inputs), 0.01))
    mask, weight = published(before, after, upper, KEEP, salience)
    found = obs_by_block(before, after, upper, keep=KEEP, salience=salience)
    assert torch.equal(found[0], mask)
    torch.testing.assert_close(found[1], weight)
    done = tailor(
        before,
        after,
        second_moment(inputs),
        keep=KEEP,
        salience=salience,
        damping=0.01,
        compensation="obs",
        granularity="block128",
    )
    assert torch.equal(done.mask, mask)
    plain = choose(before, after, upper.diagonal(), keep=KEEP, salience=salience, granularity="block128")
    assert not torch.equal(plain, mask), "weights that make up for the blocks before have other scores"
    assert plain[:, :128].equal(mask[:, :128]), "but for the first block"
    rows = mask.sum(1)
    assert rows.min() < rows.max(), "rows compete with one another"


@pytest.mark.parametrize("granularity", ["row", "block128", "layer"])
@pytest.mark.parametrize("salience", [0.0, 0.3, 1.0])
def test_what_is_kept_has_the_highest_scores_of_its_region(granularity: str, salience: float) -> None:
    before, after, inputs = (tensor.double() for tensor in made_layer())
    factor = inverse_factor(damp(second_moment(inputs), 0.01)).diagonal()
    mask = choose(before, after, factor, keep=0.2, salience=salience, granularity=granularity)  # type: ignore[arg-type]
    regions = {
        "layer": [torch.ones_like(mask)],
        "row": [torch.arange(OUTPUTS)[:, None].eq(row).expand_as(mask) for row in range(OUTPUTS)],
        "block128": [(torch.arange(INPUTS)[None] // 128).eq(block).expand_as(mask) for block in range(2)],
    }[granularity]
    for region in regions:
        moved, sensitive = (after - before).abs()[region], (after**2 / factor**2)[region]
        shape = (OUTPUTS, -1) if granularity == "block128" else (1, -1)  # z of each row, or of the region
        z = [
            ((each - each.mean(1, keepdim=True)) / each.std(1, keepdim=True, correction=0)).flatten()
            for each in (moved.reshape(shape), sensitive.reshape(shape))
        ]
        score = salience * z[0] + (1 - salience) * z[1]
        kept = mask[region]
        assert kept.sum() == int(0.2 * region.sum())
        assert score[kept].min() >= score[~kept].max()


def test_keeping_everything_is_the_fine_tune() -> None:
    assert torch.equal(tailored(keep=1.0).weight, made_layer()[1])


def test_inputs_that_are_always_zero_are_no_obstacle() -> None:
    before, after, inputs = made_layer()
    inputs[:7] = 0
    for x in (inputs, torch.zeros_like(inputs)):
        done = tailor(
            before,
            after,
            second_moment(x),
            keep=KEEP,
            salience=0.5,
            damping=0.01,
            compensation="exact",
            granularity="row",
        )
        assert done.weight.isfinite().all()
        assert (done.weight != before).any()


def test_the_losses_are_those_of_the_layers_output() -> None:
    _, after, inputs = made_layer()
    done = tailored()
    half = POSITIONS / 2
    assert done.loss * half == pytest.approx(((done.weight - after).double() @ inputs.double()).square().sum().item())
    assert done.scale * half == pytest.approx((after.double() @ inputs.double()).square().sum().item())
    assert done.loss_mask_only > done.loss
    assert loss(torch.zeros(2, INPUTS).double(), second_moment(inputs)).tolist() == [0, 0]
