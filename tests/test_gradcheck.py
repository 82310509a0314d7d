"""The finite differences that check every other gradient."""

from __future__ import annotations

import numpy as np
import pytest

from fastnn import eval_numerical_gradient


def test_gradient_of_a_cubic():
    x = np.linspace(-1, 1, 12).reshape(2, 3, 2)
    before = x.copy()
    gradient = eval_numerical_gradient(lambda x: (x**3).sum(), x)
    np.testing.assert_allclose(gradient, 3 * before**2, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(x, before)


def test_x_is_restored_when_f_raises():
    x = np.ones(3)
    with pytest.raises(ZeroDivisionError):
        eval_numerical_gradient(lambda x: 1 / 0, x)
    np.testing.assert_array_equal(x, np.ones(3))


def test_verbose(capsys):
    eval_numerical_gradient(lambda x: float(x.sum()), np.zeros((1, 2)), verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(")")[0] for line in lines] == ["(0, 0", "(0, 1"]


@pytest.mark.parametrize("x", [np.ones(3, np.float32), np.ones(3, int), [1.0, 2.0], 1.0])
def test_x_must_be_float64(x):
    with pytest.raises(TypeError, match="x: expected a float64 array, got"):
        eval_numerical_gradient(np.sum, x)


def test_bad_arguments():
    with pytest.raises(ValueError, match="one number, got shape \\(3,\\)"):
        eval_numerical_gradient(lambda x: x, np.ones(3))
    with pytest.raises(ValueError, match="h: expected"):
        eval_numerical_gradient(np.sum, np.ones(3), h=0.0)
    frozen = np.ones(3)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="x: expected a writable array"):
        eval_numerical_gradient(np.sum, frozen)
