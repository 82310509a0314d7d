"""How text becomes machine code: parts are written into one text, and Numba takes the short way."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from numba.core.errors import NumbaError

from fastnn import compilations
from fastnn.backends.numba_backend import jit as jit_module
from fastnn.backends.numba_backend.compiling import frontend, joining
from fastnn.backends.numba_backend.epoch import step
from fastnn.backends.numba_backend.jit import INTEGER, jit, jit_part
from fastnn.backends.numba_backend.language import Address, Int, Kernel
from fastnn.backends.numba_backend.layerwise import dense
from fastnn.backends.numba_backend.microkernel import microkernel

FACTOR = 3


@microkernel
def note(k: Kernel, number: Int, address: Address) -> Int:
    """Add a number behind the decimal digits at an address; it is returned."""
    k.store_integer(k.load_integer(address) * 10 + number, address)
    return number


@jit_part
def scaled(x):
    return FACTOR * x


@jit_part
def larger(x, y):
    return x if x > y else y


@jit_part
def total(first, stop, log):
    """The sum of numbers; each is noted."""
    sum = 0
    for number in range(first, stop):
        sum += note(number, log)
    return sum


@jit
def conditions(x, log):
    """`and` and `or` ask for no more than they need, as ever."""
    if x == 1 and total(1, 3, log) == 3:
        return 1
    if x == 2 or total(3, 5, log) == 0 or note(9, log) == 0:
        return 2
    if not (x > 3 and total(5, 7, log) == 11):
        return 3
    return 4


@pytest.mark.parametrize(
    ("x", "result", "noted"), [(1, 1, 12), (2, 2, 0), (3, 3, 349), (4, 4, 34956)]
)
def test_parts_in_conditions_are_computed_where_they_are_asked_for(x, result, noted):
    log = np.zeros(1, np.int64)
    assert conditions(x, log.ctypes.data) == result
    assert log[0] == noted


@jit
def names(sum, x, log):
    """Variables of a part have nothing to do with those of the same name outside."""
    first = 7
    outer = total(1, 4, log)
    stop = scaled(larger(sum, x) + first)
    return sum + 10 * outer + 100 * stop


def test_names_stay_apart():
    log = np.zeros(1, np.int64)
    assert names(2, 5, log.ctypes.data) == 2 + 60 + 3600


@jit
def misplaced(x, log):
    return note(1, log) + total(2, 4, log)


def test_a_part_with_statements_does_not_change_its_place():
    with pytest.raises(TypeError, match=r"total\(2, 4, log\) must be all that a statement"):
        misplaced(1, 0)


@jit_part
def swapped(a, b):
    return 10 * b + a


@jit_part
def chosen(c, a):
    return a if c > 0 else 0


def calls_in_arguments():
    @jit
    def calls(c, log):
        return 100 * swapped(0, 1) + swapped(c, chosen(c, 2))

    @jit
    def in_order(c, log):
        return swapped(note(1, log), note(2, log))

    @jit
    def always(c, log):
        return chosen(c, note(5, log))

    return in_order, always


@pytest.mark.parametrize("way", ["joined", "ordinary"])
def test_arguments_are_computed_in_their_order_and_once(way, monkeypatch):
    if way == "ordinary":
        monkeypatch.setattr(frontend, "lean", None)
    in_order, always = calls_in_arguments()
    for function, c, result, noted in ((in_order, 0, 21, 12), (always, 0, 0, 5), (always, 1, 5, 5)):
        log = np.zeros(1, np.int64)
        assert function(c, log.ctypes.data) == result
        assert log[0] == noted


@jit
def argument_in_an_expression(x, log):
    return x + swapped(note(1, log), x)


def test_a_call_in_an_argument_does_not_change_its_place():
    with pytest.raises(TypeError, match="must be all that a statement"):
        argument_in_an_expression(1, 0)


def of_factor(factor):
    @jit
    def scaled_by(x):
        return factor * x

    @microkernel
    def product(k: Kernel, x: Int) -> Int:
        return x * factor

    @jit
    def of_kernel(x):
        return product(x)

    return scaled_by, of_kernel


def test_two_functions_of_one_name_have_code_of_their_own():
    for of_two, of_three in zip(of_factor(2), of_factor(3), strict=True):
        assert (of_two(5), of_three(5)) == (10, 15)


def test_no_function_of_the_backend_shares_its_name():
    """Else the second is compiled in each process. This one may hold those of other tests."""
    program = """
import importlib, pkgutil
import fastnn.backends.numba_backend as package
from fastnn.backends.numba_backend.microkernel import _named

for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
print(len(_named), [name for name, functions in _named.items() if len(functions) > 1])
"""
    told = subprocess.check_output([sys.executable, "-c", program], text=True)
    number, shared = told.split(maxsplit=1)
    assert int(number) > 100
    assert shared.strip() == "[]"


def test_records_of_one_size_are_two_kinds():
    kinds = {jit_module._letter(np.dtype([(name, np.int64)])) for name in ("a", "b")}
    assert len(kinds) == 2


@jit_part
def leaves_early(x):
    if x > 0:
        return 1
    return 0


@jit
def calls_one_that_leaves_early(x):
    return leaves_early(x)


def test_a_part_has_one_return():
    with pytest.raises(TypeError, match="one return"):
        calls_one_that_leaves_early(1)


@jit
def for_nobody_or_somebody(x, team):
    if team is not None and x > 1:
        return team
    return x


def test_what_is_none_is_left_out():
    text = joining.joined(for_nobody_or_somebody.function, {"team": None})
    assert text.__code__.co_varnames == ("x",)
    assert for_nobody_or_somebody(5, None) == 5
    assert for_nobody_or_somebody(5, 7) == 7


def successor(x):
    return x + 1


def test_it_is_told_what_is_compiled():
    told = []
    with compilations.told_to(told.append):
        assert jit(successor)(1) == 2
        assert jit(successor)(2) == 3  # which is there by now
    assert told == ["successor"]


@jit
def of_no_number(x):
    return x.unknown


def test_errors_of_types_are_raised():
    with pytest.raises(NumbaError, match="unknown"):
        of_no_number(1)


HALF = np.float64(0.5)


@jit
def constants(x):
    if x * HALF > 1:
        return 7
    return 7


@jit
def constant():
    return 7


def test_constants():
    assert constants(3) == constant() == 7


@microkernel
def faulty(k: Kernel, number: Int) -> Int:
    with k.loop(0, number) as i:
        raise TypeError("a mistake of this kernel's")
    return i


@jit
def calls_a_faulty_kernel(number):
    return faulty(number)


def test_a_mistake_in_a_kernel_is_not_taken_for_a_change_of_numba(monkeypatch):
    """Else everything would be compiled again, in the ordinary way."""
    monkeypatch.setattr(frontend, "_ordinarily", lambda *_: pytest.fail("compiled again"))
    with pytest.raises(TypeError, match="a mistake of this kernel's"):
        calls_a_faulty_kernel(1)


KINDS = np.dtype(np.float32), step.SHARED, step.LAYER, *[INTEGER] * 13


@pytest.mark.parametrize(
    ("function", "kinds"),
    [
        (step.run_batches, (*KINDS, None, None)),
        (step.run_batches, (*KINDS, step.MEMBER, None)),
        (step.run_batches, (*KINDS, step.MEMBER, INTEGER)),
        (dense.product, (np.dtype(np.float64), *[INTEGER] * 7)),
    ],
    ids=["alone", "team", "laps", "product"],
)
def test_numba_takes_the_short_way(function, kinds, monkeypatch):
    """If this fails, this Numba has moved something; all else works, and compiles longer."""

    def refuse(*_):
        raise AssertionError("the ordinary way")

    def used_by(kernel, element):
        return tuple(range(len(kernel.signature(element).args)))

    monkeypatch.setattr(frontend, "_ordinarily", refuse)
    done = frontend.lowered(function.function, kinds, "symbol", used_by)
    assert len(done.needs) > 4
    assert not any("NRT_" in text for text in done.texts)


PROGRAM = """
import hashlib, sys
import numpy as np
from fastnn.backends.numba_backend.compiling import frontend
if sys.argv[1] == "moved":
    frontend.lean.untyped_passes = None
import fastnn
X, y = np.random.default_rng(0).normal(size=(96, 20)).astype(np.float32), np.arange(96) % 3
layers = [fastnn.Dense(20, 30, l2=0.1), fastnn.ReLU(), fastnn.Dense(30, 3)]
network = fastnn.Network(layers, seed=0, backend="numba", optimizer=fastnn.Adam())
network.fit(X, y, batch_size=8)
alone = network[1].forward(X), fastnn.backends.load("numba").softmax(X)
print(hashlib.sha256(network._parameters.vector.tobytes() + b"".join(alone)).hexdigest())
"""


def test_the_ordinary_way_computes_the_same(tmp_path):
    """Where something private of Numba's is not there: a compiled epoch, and layers alone.

    What this Numba compiles comes from the cache of all tests.
    """
    cache = {"here": {}, "moved": {"NUMBA_CACHE_DIR": str(tmp_path)}}
    printed = {
        way: subprocess.check_output(
            [sys.executable, "-c", PROGRAM, way],
            env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        )
        for way, variables in cache.items()
    }
    assert len(printed["here"]) > len(hashlib.sha256().hexdigest())
    assert printed["moved"] == printed["here"]


def test_a_user_may_have_compiled_before(tmp_path):
    """Then Numba knows more registries, and may put into any of them what intrinsics mean."""
    program = """
import numpy as np
from numba import njit

njit(lambda x: x.sum())(np.ones(3))
import fastnn

network = fastnn.Network([fastnn.Dense(5, 3)], optimizer=fastnn.SGD(0.1), backend="numba")
network.fit(np.ones((8, 5), np.float32), np.arange(8) % 3)
"""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
                          text=True, capture_output=True, cwd=ROOT, env=environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
