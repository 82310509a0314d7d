"""How the members of a team meet, inside a compiled function: what they tell each other, and when.

The members of a team, member 0 of which is the caller, run the same compiled function, without the
interpreter's lock. It divides its work by the member's number, and its members wait for each other
at meetings. They tell each other by signals, 64-bit integers, each in cache lines of its own. Only
one of them writes a signal, but for `ready`, which the caller takes back:

    arrived     of each member: how many meetings it has come to
    ready       of each member: whether it waits to be called
    called      by the caller: the number of the step that all begin with, or END
    parting     by the caller: the number of the step after which all part

The caller works alone until every member is ready, and calls them. Once a call it waits for them,
a small part of a step at most: a thread wakes up in some tenths of a millisecond, and a large step
that begins without it would be taken alone. Otherwise it waits for none before they have come. So
nobody waits long for a thread that is starting, or that the operating system has put aside in
favour of another program. The first step of all is taken alone as a rule, and one now and then, to
compare with. While they are together, the caller compares how long their steps take
with how long its own took. Where steps together are slower, because another program takes the
core of a member, because two members share one, or because messages take longer than the work
that they save, the members part at the end of a step, the caller goes on alone, and they come back
after the time that was lost; if that is lost again, after twice as long each time, up to sixteen
times what was lost. So in the long run hardly more than a sixteenth of the time is lost, and what
passes soon costs little: the threads of another library's matrix products, which wait some
hundredths of a second for the next one, are often at work just before a training begins.

The order of memory is the same on every processor, as compiled code reads each signal by a load
that acquires and changes it by a store that releases (`ldar` or `ldapr`, and `stlr`, on Arm; on x86
every load and store is one). Whoever reads a number sees what its writer had written before that
number, and what its writer had read of others; that chain is all that anything here rests on:

    called      who reads a step sees all weights as the caller left them when it was alone, and
                `ready` taken back. Steps only grow, so one that was called before isn't taken for
                another; and the caller can't call again, or end, before the first meeting of the
                step, so a second look finds the same number. END comes by a plain store of Python,
                of 64 bits at once; who reads it touches nothing more of the network
    ready       who reads 1 knows that the member has ended its part of the step before
    arrived     grows by one at each meeting. Past a meeting, what any member wrote before it can be
                read; and what any member read before it can be written: a store that releases waits
                for loads as well. So memory is reused after one meeting, never without one
    parting     is written before the caller comes to the last meeting of the step, and read after
                it; so all members read the same, and part at one place

The caller's own notes, below `return at`, nobody else reads while a step runs. What tables and
signals hold at first, and what members return, crosses by the queues of `threads.py`, whose locks
order it. A test walks through all orders in which this may happen.
Tried and lost: sixteen times from the first, which after a fit of scikit-learn cost a network of
784-100-10 two of its first four epochs together; parting when somebody has been waited for longer
than a millisecond, as happens often where a machine is shared: the step must wait all the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastnn import memory

from ..jit import jit_part
from ..language import Address, Condition, Int, Kernel
from ..microkernel import microkernel
from ..system import SYSTEM

MOST_MEMBERS = 4
"""Members of the largest team."""

PLACE_BYTES = 128
"""Between signals of different writers: processors fetch cache lines in pairs."""

POLLS = 1000
"""Looks at a signal before the processor is offered to others."""

PATIENCE_SHARE = 32
"""Into so many parts a step is cut, one of which the caller waits for members to wake up."""

MOST_SHARE = 8
"""Likewise, where that may be too short for them to wake up in: then an eighth is worth it."""

WAKING_TIME = 250_000
"""Nanoseconds in which most members that have slept are ready, and nearly all in twice as many."""

CALLS_TO_COMPARE = 32
"""In one of so many calls the caller doesn't wait, so that it may take a step alone. So it is in
the first ones whose number is a power of two: the first step of all is slow, as its memory is."""

END = -1
"""What the caller calls at the end: there is no step to come."""

PLACES = {
    name: PLACE_BYTES * number
    for number, name in enumerate(
        (
            *(f"arrived {member}" for member in range(MOST_MEMBERS)),
            *(f"ready {member}" for member in range(MOST_MEMBERS)),
            "called", "parting", "return at",
            # what the caller notes for itself
            "since", "time", "steps", "alone time", "alone steps",
            # settings
            "patience", "pause", "enough time", "enough steps", "longest pause",
        )
    )
}  # fmt: skip
"""Where each signal lies, in bytes from the first."""

ARRIVED, READY = PLACES["arrived 0"], PLACES["ready 0"]
CALLED, PARTING, RETURN_AT = PLACES["called"], PLACES["parting"], PLACES["return at"]
SINCE, TIME, STEPS = PLACES["since"], PLACES["time"], PLACES["steps"]
ALONE_TIME, ALONE_STEPS = PLACES["alone time"], PLACES["alone steps"]
ENOUGH_TIME, ENOUGH_STEPS = PLACES["enough time"], PLACES["enough steps"]
PATIENCE = PLACES["patience"]
PAUSE, LONGEST_PAUSE = PLACES["pause"], PLACES["longest pause"]

SETTINGS = {
    # nanoseconds and steps together after which they are compared with those alone
    ENOUGH_TIME: 20_000_000,
    ENOUGH_STEPS: 4,
    # how many times as long as the time lost together the members stay apart, at the most
    LONGEST_PAUSE: 16,
    # handed on from call to call; PAUSE is how many times as long it would be now
    PAUSE: 1,
    RETURN_AT: 0,
    TIME: 0,
    STEPS: 0,
    ALONE_TIME: 0,
    ALONE_STEPS: 0,
}


@microkernel
def signal_at(k: Kernel, address: Address) -> Int:
    """The signal at an address."""
    return k.load_shared(address)


@microkernel
def put_signal(k: Kernel, number: Int, address: Address) -> None:
    """Change the signal at an address."""
    k.store_shared(number, address)


@microkernel
def clock(k: Kernel) -> Int:
    """Nanoseconds since some moment."""
    return k.clock()


def look_while(k: Kernel, waiting: Callable[[], Condition]) -> None:
    """Write a loop that looks at signals while `waiting()`; later it offers the processor.

    Tried, and nothing gained: the processor's hint to a loop that waits, x86's `pause`, with each
    of 50 looks before the processor is offered, as one takes an Intel 140 cycles, or with the
    last 40 of 240. Medians and quartiles of a step on two cores of a virtual Emerald Rapids, by
    processes in turn:

        784-                              no hint            each look          last 40
        100-200-10, batch 32, us          76.4 (74.1-84.2)   77.6 (75.0-84.2)   79.1 (75.1-81.7)
        2048-2048-10, dense, 128, ms      27.2 (25.8-29.4)   28.5 (25.3-29.9)   25.8 (25.2-27.8)
        512-512-10, dense, 512, ms        12.8 (12.4-13.8)   13.1 (12.3-14.0)   12.8 (12.1-13.6)

    The first two are of 18 processes each in the first row, all others of 9. Not tried: two
    processors that are halves of one core, where who waits takes from who works; Arm's `isb`.
    """
    polls = k.variable(k.integer(0))
    with k.loop_while(waiting):
        polls[0] = polls[0] + 1
        with k.when(polls[0] > POLLS):
            k.yield_processor()


@microkernel
def wait(k: Kernel, signals: Address, members: Int, meeting: Int) -> None:
    """Wait until all members have come to a meeting.

    Why it is fast: each member writes one signal, in a cache line that it alone writes; so a
    meeting costs one transfer of a line to each other member. A member that has waited for some
    microseconds offers its processor to others: the one for which it waits may need it.
    """
    with k.loop(0, members) as other:
        signal = signals + ARRIVED + other * PLACE_BYTES
        look_while(k, lambda: k.load_shared(signal) < meeting)


@microkernel
def wait_for_call(k: Kernel, signals: Address, member: Int, last: Int) -> Int:
    """A member, until the caller calls: stay away while it is to, be ready, return what is called.

    `last` is what was called before. Who stays away sleeps a millisecond at a time, so that
    the end is heard soon; who is ready waits for a step of the caller, at most.
    """
    called = signals + CALLED

    def go_on():
        return k.load_shared(called).differs(END)

    with k.loop_while(lambda: go_on() & (k.clock() < k.load_shared(signals + RETURN_AT))):
        k.sleep(1000)
    k.store_shared(1, signals + READY + member * PLACE_BYTES)
    look_while(k, lambda: k.load_shared(called).equals(last))
    return k.load_shared(called)


@microkernel
def wait_until_ready(k: Kernel, signals: Address, members: Int, patience: Int) -> None:
    """The caller, until all other members are ready, but at most so many nanoseconds."""
    stop = k.clock() + patience
    with k.loop(1, members) as other:
        signal = signals + READY + other * PLACE_BYTES
        look_while(k, lambda: k.load_shared(signal).equals(0) & (k.clock() < stop))


@jit_part
def call_members(signals, members, step):
    """Call the members to begin with a step if all of them are ready; return whether they are.

    The first time in a call the caller waits for them, if it has patience.
    """
    patience = signal_at(signals + PATIENCE)
    if patience != 0:
        put_signal(0, signals + PATIENCE)
        wait_until_ready(signals, members, patience)
    ready = 1
    for other in range(1, members):
        if signal_at(signals + READY + other * PLACE_BYTES) == 0:
            ready = 0
    if ready == 1:
        for other in range(1, members):
            put_signal(0, signals + READY + other * PLACE_BYTES)
        put_signal(clock(), signals + SINCE)
        put_signal(step, signals + CALLED)
    return ready == 1


@jit_part
def arrive(signals, member, meeting):
    """Come to the next meeting, without waiting for the others; return its number."""
    put_signal(meeting + 1, signals + ARRIVED + member * PLACE_BYTES)
    return meeting + 1


@jit_part
def meet(signals, member, members, meeting):
    """Come to the next meeting and wait for the other members; return its number."""
    meeting = arrive(signals, member, meeting)
    wait(signals, members, meeting)
    return meeting


@jit_part
def note_alone(signals, nanoseconds):
    """The caller, after a step that it took alone: add up what those of late took."""
    time = signal_at(signals + ALONE_TIME) + nanoseconds
    steps = signal_at(signals + ALONE_STEPS) + 1
    if time > 4 * signal_at(signals + ENOUGH_TIME) and steps > 1:
        # half of the steps with their share of the time: the mean stays
        time = time * (steps // 2) // steps
        steps //= 2
    put_signal(time, signals + ALONE_TIME)
    put_signal(steps, signals + ALONE_STEPS)


@jit_part
def consider_parting(signals, step):
    """The caller, before the last meeting of a step: have all part after it if that is better.

    Time and steps together are added up over calls: those of a short epoch are too few to tell.
    """
    steps = signal_at(signals + STEPS) + 1
    now = clock()
    time = signal_at(signals + TIME) + now - signal_at(signals + SINCE)
    if steps >= signal_at(signals + ENOUGH_STEPS) and time >= signal_at(signals + ENOUGH_TIME):
        alone = signal_at(signals + ALONE_TIME) * steps // max(signal_at(signals + ALONE_STEPS), 1)
        pause = 1
        if alone < time and signal_at(signals + ALONE_STEPS) != 0:
            pause = signal_at(signals + PAUSE)
            put_signal(now + pause * (time - alone), signals + RETURN_AT)
            put_signal(step, signals + PARTING)
            pause = min(2 * pause, signal_at(signals + LONGEST_PAUSE))
        put_signal(pause, signals + PAUSE)
        time = steps = 0
    put_signal(now, signals + SINCE)
    put_signal(time, signals + TIME)
    put_signal(steps, signals + STEPS)


@jit_part
def parted(signals, step):
    """Whether the caller has decided, before a meeting of this step, that all part after it."""
    return signal_at(signals + PARTING) == step


class Signals:
    """The signals of one network's teams. Each call has its own; some are handed on."""

    def __init__(self) -> None:
        self.settings = dict(SETTINGS)
        self._calls = 0

    def patience(self) -> int:
        """Return how many nanoseconds the caller of the next call is to wait for members.

        That is a small part of what a step alone takes. It is 0 in the first call, where nobody
        knows what that is, and now and then, since a step alone is what steps together are
        compared with.
        """
        self._calls += 1
        power_of_two = self._calls & (self._calls - 1) == 0
        if self._calls % CALLS_TO_COMPARE == 0 or (power_of_two and self._calls > 1):
            return 0
        steps = max(self.settings[ALONE_STEPS], 1)
        alone = self.settings[ALONE_TIME] // steps
        return max(alone // PATIENCE_SHARE, min(alone // MOST_SHARE, 2 * WAKING_TIME))

    def new(self, patience: int = 0) -> np.ndarray:
        """Return signals for one call, whose caller waits so many nanoseconds for members."""
        signals = memory.aligned_zeros(len(PLACES) * PLACE_BYTES // 8, np.dtype(np.int64))
        for place, value in self.settings.items():
            signals[place // 8] = value
        signals[PATIENCE // 8] = patience
        return signals

    def keep(self, signals: np.ndarray) -> None:
        """Remember from a call how long the members stay away, and how long steps took."""
        for place in (RETURN_AT, PAUSE, TIME, STEPS, ALONE_TIME, ALONE_STEPS):
            self.settings[place] = int(signals[place // 8])

    def apart(self) -> bool:
        """Return whether it is not yet time for the members to come back."""
        later = self.settings[RETURN_AT]
        return later > 0 and SYSTEM.now() < later
