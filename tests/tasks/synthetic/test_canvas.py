"""A canvas is a picture of its own, whatever is painted on another of its colour."""

from lmmcl.tasks.synthetic.draw import canvas


def test_what_is_painted_on_one_canvas_is_not_on_the_next():
    painted = canvas((18, 18, 22))
    painted[:] = 255
    assert canvas((18, 18, 22)).reshape(-1, 3).tolist() == [[18, 18, 22]] * (32 * 32)
