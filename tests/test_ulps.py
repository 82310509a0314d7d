"""Elementwise functions over the whole range of numbers, in units in the last place.

`ulps.py` measures them over every float32, and says where the largest errors are; here is a sample
of all exponents, and those places.
"""

from __future__ import annotations

import os

import mpmath
import numpy as np
import pytest
import ulps
from llvmlite import binding

long_enough = pytest.mark.skipif(
    np.finfo(np.longdouble).nmant < 63, reason="a long double is not longer than a float64 here"
)
FEWER = 4 if "FASTNN_VECTOR_BITS" in os.environ else 1
"""Other widths give the same bits, which a test compares."""
of_each_function = pytest.mark.parametrize("name", ulps.functions())


@pytest.mark.parametrize(
    "dtype", [np.float32, pytest.param(np.float64, marks=long_enough)], ids=["float32", "float64"]
)
@pytest.mark.every_width
@pytest.mark.without_fma
@of_each_function
def test_errors(name, dtype):
    function, dtype = ulps.functions()[name], np.dtype(dtype)
    x = ulps.sample(dtype, (128 if dtype == np.float32 else 8) // FEWER)
    recorded = ulps.known()[dtype.name].get(name, {})
    places = [float.fromhex(at) for of in recorded.values() for at in of["at"]]
    x = ulps.inside(function, np.concatenate([x, np.array(places, dtype)]))
    with np.errstate(all="ignore"):
        found = {backend: compute(x) for backend, compute in function.by.items()}
        bounds = {backend: function.bound(backend, x.astype(np.float64)) for backend in found}
    for backend, error in ulps.errors(function, x, found).items():
        worst = np.argmax(error / bounds[backend]) if function.ulps else np.argmax(error)
        assert (error <= bounds[backend]).all(), (backend, x[worst], error[worst])


mp = mpmath.mp
LONGEST = {
    "exp (piece)": mp.exp,
    "exp of any sign (piece)": mp.exp,
    "expm1 (piece)": mp.expm1,
    "log1p (piece)": mp.log1p,
    "tanh (piece)": mp.tanh,
    "gaussian (piece)": lambda x: mp.exp(-x * x / 2),
    "normal distribution (piece)": lambda x: mp.erfc(-x / mp.sqrt(2)) / 2,
    "ReLU": lambda x: max(x, 0),
    "Rescaling(0.5)": lambda x: x / 2,
    "Sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "Tanh": mp.tanh,
    "LeakyReLU(0.1)": lambda x: x if x > 0 else mp.mpf(0.1) * x,
    "ELU(1.25)": lambda x: x if x > 0 else 1.25 * mp.expm1(x),
    "SELU": lambda x: (
        mp.mpf("1.0507009873554804934")
        * (x if x > 0 else mp.mpf("1.6732632423543772848") * mp.expm1(x))
    ),
    "SiLU": lambda x: x / (1 + mp.exp(-x)),
    "GELU": lambda x: x * mp.erfc(-x / mp.sqrt(2)) / 2,
    "Softplus": lambda x: mp.log1p(mp.exp(x)),
    "Mish": lambda x: x * mp.tanh(mp.log1p(mp.exp(x))),
}
"""The functions once more, of numbers with 80 digits."""


def test_every_function_has_a_longer_one():
    assert set(LONGEST) == {name for name in ulps.functions() if not name.endswith("'")}


@pytest.mark.skipif(
    not binding.get_host_cpu_features().get("fma") or "NUMBA_CPU_NAME" in os.environ,
    reason="measured with fused multiply-adds",
)
@of_each_function
def test_what_was_measured_is_so_still(name):
    """Who changes a kernel measures it again: `python tests/ulps.py --exhaustive`."""
    function = ulps.functions()[name]
    if "numba" not in function.by:
        pytest.skip("NumPy's own, which depends on its version")
    recorded = ulps.known()["float32"][name]["numba"]
    x = np.array([float.fromhex(at) for at in recorded["at"]], np.float32)
    at_worst = ulps.errors(function, x, {"numba": function.by["numba"](x)})["numba"]
    assert at_worst[0] == pytest.approx(recorded["ulps"], abs=0.001)
    assert (at_worst[0] >= at_worst).all()
    x = ulps.inside(function, ulps.sample(np.dtype(np.float32), 32))
    with np.errstate(all="ignore"):
        error = ulps.errors(function, x, {"numba": function.by["numba"](x)})["numba"]
    assert error.max() <= recorded["ulps"] + 0.001


@long_enough
@of_each_function
def test_what_results_are_compared_with(name, rng):
    """The error of a long double is below a fiftieth of a unit of a float64."""
    function = ulps.functions()[name]
    sizes = 10.0 ** rng.uniform(-8, 2.5, 24)
    x = np.clip(sizes * rng.choice([-1.0, 1.0], 24), function.low, function.high)
    x = x[x != 0].astype(np.longdouble)
    with np.errstate(under="ignore"):
        summands = [np.asarray(s, np.longdouble) for s in function.exact(x)]
    found, magnitude = sum(summands), sum(map(np.abs, summands))
    unit = ulps.units(magnitude, np.dtype(np.float64))
    longest = LONGEST[name.removesuffix("'")]
    with mp.workdps(80):
        for number, value, one in zip(x, found, unit, strict=True):
            at = mp.mpf(float(number))
            exact = mp.diff(longest, at) if name.endswith("'") else longest(at)
            written = mp.mpf(np.format_float_scientific(value, precision=25))
            assert abs(written - exact) <= mp.mpf(float(one)) / 50, at


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@of_each_function
def test_special_values(name, dtype):
    """NaN of every sign and payload; what backends give where no unit in the last place is."""
    function, dtype = ulps.functions()[name], np.dtype(dtype)
    bits, integer = (23, np.uint32) if dtype == np.float32 else (52, np.uint64)
    payloads = np.concatenate([2 ** np.arange(bits), 2**bits - 2 ** np.arange(bits)])
    quiet = integer(np.array(np.inf, dtype).view(integer)) | payloads.astype(integer)
    nans = np.concatenate([quiet.view(dtype), -quiet.view(dtype)])
    edges = ulps.inside(function, np.array([0, -0.0, np.inf, -np.inf], dtype))
    tiny = np.finfo(dtype).tiny
    found = {}
    for backend, compute in function.by.items():
        with np.errstate(all="ignore"):
            result = compute(np.concatenate([nans, edges]))
        if "piece" not in name and name not in ("ReLU'", "LeakyReLU(0.1)'", "Rescaling(0.5)'"):
            assert np.isnan(result[: len(nans)]).all(), backend
        found[backend] = result[len(nans) :]
        assert not np.isnan(found[backend]).any()
    for result in found.values():
        expected = next(iter(found.values()))
        np.testing.assert_allclose(result, expected, rtol=8 * np.finfo(dtype).eps, atol=tiny)


def test_the_page_has_the_bounds():
    """`python tests/ulps.py --page` writes them."""
    text = ulps.PAGE.read_text("utf-8")
    assert ulps.page(text) == text


@pytest.mark.every_width
def test_bits_of_other_widths():
    expected = os.environ.get("FASTNN_TEST_BITS")
    if expected is None:
        pytest.skip("told of no other width")
    assert ulps.bits_of_results() == expected
