"""How parameters move along a gradient: each rule's formula, and the pass that puts it on memory.

A formula takes vectors of parameters w, their gradient g and their state, and returns the new
parameters and the new state; `numpy_backend.py` has the equations of the same names. `RULES` makes
a kernel of each, which both wings call through its address by `step_by`.

State that falls below the smallest normal number becomes zero. It would stay denormal for ever,
since 0.9 times the smallest number of all is rounded to that number again. Where gradients are
zero, as at pixels that are rarely lit, it falls so far within an epoch, and many CPUs compute
with such numbers several times slower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..jit import KernelOperation, call, jit_part
from ..language import FLOAT, Address, Int, Kernel, Matrix, Real, Vector
from .squares import store_wide_sum, wide_square, wide_zero


class Numbers(NamedTuple):
    """What a step multiplies by, each number in every lane of a vector.

    `beta1` is also the momentum, and the rho of RMSprop. `rest1` and `rest2` are 1 - beta1 and
    1 - beta2, computed before they are rounded. At step n of Adam, counted from 1,
    rate = learning_rate / (1 - beta1^n) and correction = 1 / sqrt(1 - beta2^n) correct the means
    for their start at zero. `shrinking` is the share that AdamW takes off weights.
    """

    rate: Vector
    correction: Vector
    beta1: Vector
    rest1: Vector
    beta2: Vector
    rest2: Vector
    epsilon: Vector
    shrinking: Vector


def sgd(k: Kernel, by: Numbers, w: Vector, g: Vector) -> Sequence[Vector]:
    """w <- w - rate g."""
    return [k.fma(by.rate * -1.0, g, w)]


def momentum(k: Kernel, by: Numbers, w: Vector, g: Vector, v: Vector) -> Sequence[Vector]:
    """v <- beta1 v + g; w <- w - rate v."""
    v = k.fma(by.beta1, v, g)
    return k.fma(by.rate * -1.0, v, w), _without_denormals(k, v)


def nesterov(k: Kernel, by: Numbers, w: Vector, g: Vector, v: Vector) -> Sequence[Vector]:
    """v <- beta1 v + g; w <- w - rate (g + beta1 v)."""
    v = k.fma(by.beta1, v, g)
    return k.fma(by.rate * -1.0, k.fma(by.beta1, v, g), w), _without_denormals(k, v)


def rmsprop(k: Kernel, by: Numbers, w: Vector, g: Vector, s: Vector) -> Sequence[Vector]:
    """s <- beta1 s + rest1 g^2; w <- w - rate g / (sqrt(s) + epsilon)."""
    s = k.fma(by.beta1, s, by.rest1 * (g * g))
    w = w - by.rate * g / (k.call("sqrt", s) + by.epsilon)
    return w, _without_denormals(k, s)


def adam(k: Kernel, by: Numbers, w: Vector, g: Vector, m: Vector, s: Vector) -> Sequence[Vector]:
    """m <- beta1 m + rest1 g; s <- beta2 s + rest2 g^2.

    w <- w - shrinking w - rate m / (correction sqrt(s) + epsilon).
    """
    # a share of 0 takes nothing off: 0 times an infinite weight would be NaN
    w = k.where(by.shrinking.differs(0.0), k.fma(by.shrinking * -1.0, w, w), w)
    m = k.fma(by.beta1, m, by.rest1 * g)
    s = k.fma(by.beta2, s, by.rest2 * (g * g))
    w = w - by.rate * m / k.fma(by.correction, k.call("sqrt", s), by.epsilon)
    return w, _without_denormals(k, m), _without_denormals(k, s)


def _without_denormals(k: Kernel, state: Vector) -> Vector:
    """Return `state` with numbers below the smallest normal one put to zero."""
    smallest = 2.0**-126 if k.element == FLOAT else 2.0**-1022
    return k.where(k.call("fabs", state) < smallest, k.zero(), state)


UNROLL = 4
"""Vectors that a pass loads before it stores the first."""


def _pass(formula: Callable[..., Sequence[Vector]], states: int) -> Callable[..., None]:
    """Return the function that writes the pass for a formula with so many vectors of state."""

    def write(
        k: Kernel,
        rate: Real,
        correction: Real,
        beta1: Real,
        rest1: Real,
        beta2: Real,
        rest2: Real,
        epsilon: Real,
        shrinking: Real,
        decay: Real,
        parameters: Matrix,
        gradient: Address,
        first_state: Address,
        second_state: Address,
        squares: Address,
    ) -> None:
        """Move parameters along gradient + decay * parameters.

        Rows of the parameters are of neighbouring numbers, at any address. The gradient and as many
        states as the rule has lie at their addresses as the parameters do.
        `squares` is the address of a float64 for the sum of the squares of the parameters before
        they move, or 0.
        Why it is fast: what moves is read and written once, without temporary vectors. The squares,
        which are added up in float64 as those of 1e20 are beyond float32, have a loop of their own:
        in one for all they took 3 % of a step with Adam, and 9 % with momentum in batches of one.
        """
        numbers = rate, correction, beta1, rest1, beta2, rest2, epsilon, shrinking
        by, decays = Numbers(*map(k.broadcast, numbers)), k.broadcast(decay)
        penalty = decays.differs(0.0)
        moved = [parameters.address, first_state, second_state][: 1 + states]
        columns = parameters.columns
        sums = k.variables(wide_zero(k), UNROLL)
        whole = columns // k.lanes
        chosen = k.lane_before(columns - whole * k.lanes)

        def move(first: Int, width: int, load: Load, store: Store, squared: bool) -> None:
            places = [first + i * k.vector_bytes for i in range(width)]
            before = [[load(address + place) for address in moved] for place in places]
            gradients = [load(gradient + place) for place in places]
            for i, (place, g, (w, *state)) in enumerate(
                zip(places, gradients, before, strict=True)
            ):
                if squared:
                    sums[i] = sums[i] + wide_square(k, w)
                # without a penalty nothing is added: 0 times an infinite parameter would be NaN
                g = k.where(penalty, k.fma(decays, w, g), g)
                for address, vector in zip(moved, formula(k, by, w, g, *state), strict=True):
                    store(vector, address + place)

        def move_all(squared: bool) -> None:
            with k.loop(0, parameters.rows) as row:
                start = row * parameters.row_stride
                unrolled = whole // UNROLL * UNROLL
                for width, begin, end in (
                    (UNROLL, k.integer(0), unrolled),
                    (1, unrolled, whole),
                ):
                    with k.loop(begin, end, width) as j:
                        place = start + j * k.vector_bytes
                        move(place, width, k.load_anywhere, k.store_anywhere, squared)
                with k.when(columns > whole * k.lanes):
                    move(start + whole * k.vector_bytes, 1, *k.masked(chosen), squared)

        with k.if_else(squares.differs(0)) as (yes, no):
            with yes:
                move_all(True)
                store_wide_sum(k, (sums[0] + sums[1]) + (sums[2] + sums[3]), squares)
            with no:
                move_all(False)

    return write


Load = Callable[[Int], Vector]
Store = Callable[[Vector, Int], None]


class Rule(NamedTuple):
    """How many vectors of state a rule has beside the parameters, and the kernel that moves all."""

    states: int
    kernel: KernelOperation


RULES = {
    formula.__name__: Rule(
        states, KernelOperation(_pass(formula, states), f"{formula.__name__}_step")
    )
    for formula, states in ((sgd, 0), (momentum, 1), (nesterov, 1), (rmsprop, 1), (adam, 2))
}
"""Each kind of rule, by its name in `description.Rule`."""


@jit_part
def step_by(
    kernel, rate, correction, beta1, rest1, beta2, rest2, epsilon, shrinking, decay,
    parameters, gradient, first_state, second_state, squares,
):  # fmt: skip
    """Call the kernel of a rule, which lies at an address.

    The arguments are those of `write` in `_pass`, in its order. A call through an address checks
    neither order nor count of them, so this is the only place that makes one, and who comes here
    gives the numbers by name.
    """
    call(
        kernel, rate, correction, beta1, rest1, beta2, rest2, epsilon, shrinking, decay,
        parameters, gradient, first_state, second_state, squares,
    )  # fmt: skip
