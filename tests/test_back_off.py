"""What fails for a moment is tried again after pauses that grow; what will fail again is not."""

from __future__ import annotations

import pytest

from lmmcl.back_off import BackOff


class Flaky:
    """Fails with each of `errors`, then returns."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.calls = list(errors), 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_pauses_double_up_to_the_longest() -> None:
    assert [BackOff().pause(failures) for failures in (0, 1, 2, 3, 9, 5000)] == [1, 1, 2, 4, 30, 30]
    assert list(BackOff(longest=32, retries=6).pauses()) == [1, 2, 4, 8, 16, 32]


def test_a_transient_error_is_tried_again_with_a_pause_before_each_try() -> None:
    flaky, slept, logged = Flaky(OSError("a"), OSError("b")), [], []
    done = BackOff(retries=2).call(
        flaky,
        is_transient=lambda error: isinstance(error, OSError),
        on_retry=lambda error, pause: logged.append((str(error), pause)),
        sleep=slept.append,
    )
    assert (done, flaky.calls, slept) == ("done", 3, [1, 2])
    assert logged == [("a", 1), ("b", 2)]


@pytest.mark.parametrize(("retries", "calls"), [(0, 1), (1, 2)])
def test_the_last_try_raises_its_error(retries: int, calls: int) -> None:
    flaky = Flaky(*[OSError("away")] * 9)
    with pytest.raises(OSError, match="away"):
        BackOff(retries=retries).call(flaky, is_transient=lambda error: True, sleep=lambda seconds: None)
    assert flaky.calls == calls


def test_what_is_not_transient_is_raised_at_once() -> None:
    flaky = Flaky(ValueError("wrong"))
    with pytest.raises(ValueError, match="wrong"):
        BackOff().call(flaky, is_transient=lambda error: isinstance(error, OSError), sleep=lambda seconds: None)
    assert flaky.calls == 1
