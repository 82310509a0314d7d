"""A team of threads that run the same compiled function together.

The members of a team are the thread that calls, member 0, and daemon threads of Python
that were started once and sleep between calls. The compiled function, which runs
without the interpreter's lock, divides its work by the member's number, and its members wait for
each other at meetings. They tell each other by signals, 64-bit integers, each in cache lines of
its own. Only one of them writes a signal, but for `ready`, which the caller takes back:

    arrived     of each member: how many meetings it has come to
    ready       of each member: whether it waits to be called
    called      by the caller: the number of the step that all begin with, or END
    parting     by the caller: the number of the step after which all part

The caller works alone until every member is ready, calls them, and waits for none before they
have come. So nobody waits for a thread that is starting, or that the operating system has put aside
in favour of another program. While they are together, the caller compares how long their steps take
with how long its own took. Where steps together are slower, because another program takes the
core of a member, because two members share one, or because messages take longer than the work
that they save, the members part at the end of a step, the caller goes on alone, and they come back
after the time that was lost; if that is lost again, after twice as long each time, up to sixteen
times what was lost. So in the long run hardly more than a sixteenth of the time is lost, and what
passes soon costs little: the threads of another library's matrix products, which wait some
hundredths of a second for the next one, are often at work just before a training begins.
Tried and lost: sixteen times from the first, which after a fit of scikit-learn cost a network of
784-100-10 two of its first four epochs together; parting when somebody has been waited for longer
than a millisecond, as happens often where a machine is shared: the step must wait all the same.

A member keeps away from the core of the caller, and from those of other members. Left alone, the
operating system wakes a thread now and then on the core of the one that wakes it, and two
threads which offer each other their processor stay there.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np

from fastnn import memory
from fastnn.processors import processors

from ..jit import jit_part
from ..language import Int, Kernel
from ..machine import HAS_POSIX, cores
from ..microkernel import microkernel

MOST_MEMBERS = 4 if HAS_POSIX else 1
"""Members of the largest team."""

PLACE_BYTES = 128
"""Between signals of different writers: processors fetch cache lines in pairs."""

POLLS = 1000
"""Looks at a signal before the processor is offered to others."""

END = -1
"""What the caller calls at the end: there is no step to come."""

PLACES = {
    name: PLACE_BYTES * number
    for number, name in enumerate(
        (
            *(f"arrived {member}" for member in range(4)),
            *(f"ready {member}" for member in range(4)),
            "called", "parting", "return at",
            # what the caller notes for itself
            "since", "time", "steps", "alone time", "alone steps",
            # settings
            "pause", "enough time", "enough steps", "longest pause",
        )
    )
}  # fmt: skip
"""Where each signal lies, in bytes from the first."""

ARRIVED, READY = PLACES["arrived 0"], PLACES["ready 0"]
CALLED, PARTING, RETURN_AT = PLACES["called"], PLACES["parting"], PLACES["return at"]
SINCE, TIME, STEPS = PLACES["since"], PLACES["time"], PLACES["steps"]
ALONE_TIME, ALONE_STEPS = PLACES["alone time"], PLACES["alone steps"]
ENOUGH_TIME, ENOUGH_STEPS = PLACES["enough time"], PLACES["enough steps"]
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


# ----------------------------------------------------------------- inside a compiled function


@microkernel
def heard(k: Kernel, address: Int) -> Int:
    """The signal at an address."""
    return k.load_shared(address)


@microkernel
def say(k: Kernel, number: Int, address: Int) -> None:
    """Change the signal at an address."""
    k.store_shared(number, address)


@microkernel
def clock(k: Kernel) -> Int:
    """Nanoseconds since some moment."""
    return k.clock()


@microkernel
def wait(k: Kernel, signals: Int, members: Int, meeting: Int) -> None:
    """Wait until all members have come to a meeting.

    Why it is fast: each member writes one signal, in a cache line that it alone writes; so a
    meeting costs one transfer of a line to each other member. A member that has waited for some
    microseconds offers its processor to others: the one for which it waits may need it.
    """
    with k.loop(0, members) as other:
        signal = signals + ARRIVED + other * PLACE_BYTES
        polls = k.variable(k.integer(0))
        with k.loop_while(lambda: k.load_shared(signal) < meeting):
            polls[0] = polls[0] + 1
            with k.when(polls[0] > POLLS):
                k.yield_processor()


@microkernel
def answer(k: Kernel, signals: Int, member: Int, last: Int) -> Int:
    """Come back when it is time, be ready, and return the number that is called.

    `last` is what was called before. Who stays away sleeps a millisecond at a time, so that
    the end is heard soon; who is ready waits for a step of the caller, at most.
    """
    called = signals + CALLED

    def go_on():
        return k.load_shared(called).differs(END)

    with k.loop_while(lambda: go_on() & (k.clock() < k.load_shared(signals + RETURN_AT))):
        k.sleep(1000)
    k.store_shared(1, signals + READY + member * PLACE_BYTES)
    polls = k.variable(k.integer(0))
    with k.loop_while(lambda: k.load_shared(called).equals(last)):
        polls[0] = polls[0] + 1
        with k.when(polls[0] > POLLS):
            k.yield_processor()
    return k.load_shared(called)


@jit_part
def call_members(signals, members, step):
    """Call the members to begin with a step if all of them are ready; return whether they are."""
    for other in range(1, members):
        if heard(signals + READY + other * PLACE_BYTES) == 0:
            return False
    for other in range(1, members):
        say(0, signals + READY + other * PLACE_BYTES)
    say(clock(), signals + SINCE)
    say(step, signals + CALLED)
    return True


@jit_part
def arrive(signals, member, meeting):
    """Come to the next meeting, without waiting for the others; return its number."""
    say(meeting + 1, signals + ARRIVED + member * PLACE_BYTES)
    return meeting + 1


@jit_part
def note_alone(signals, nanoseconds):
    """The caller, after a step that it took alone: add up what those of late took."""
    time = heard(signals + ALONE_TIME) + nanoseconds
    steps = heard(signals + ALONE_STEPS) + 1
    if time > 4 * heard(signals + ENOUGH_TIME):
        time //= 2
        steps = (steps + 1) // 2
    say(time, signals + ALONE_TIME)
    say(steps, signals + ALONE_STEPS)


@jit_part
def consider_parting(signals, step):
    """The caller, before the last meeting of a step: have all part after it if that is better.

    Time and steps together are added up over calls: those of a short epoch are too few to tell.
    """
    steps = heard(signals + STEPS) + 1
    now = clock()
    time = heard(signals + TIME) + now - heard(signals + SINCE)
    if steps >= heard(signals + ENOUGH_STEPS) and time >= heard(signals + ENOUGH_TIME):
        alone = heard(signals + ALONE_TIME) * steps // max(heard(signals + ALONE_STEPS), 1)
        pause = 1
        if alone < time and heard(signals + ALONE_STEPS) != 0:
            pause = heard(signals + PAUSE)
            say(now + pause * (time - alone), signals + RETURN_AT)
            say(step, signals + PARTING)
            pause = min(2 * pause, heard(signals + LONGEST_PAUSE))
        say(pause, signals + PAUSE)
        time = steps = 0
    say(now, signals + SINCE)
    say(time, signals + TIME)
    say(steps, signals + STEPS)


@jit_part
def parted(signals, step):
    """Whether the caller has decided, before a meeting of this step, that all part after it."""
    return heard(signals + PARTING) == step


# ------------------------------------------------------------------------------- in Python


def _processor_of(thread: int) -> int:
    """Return on which processor a thread runs, or ran last; -1 if the system doesn't tell."""
    try:
        with open(f"/proc/self/task/{thread}/stat", encoding="ascii") as file:
            # the name of the thread, in brackets, may hold anything
            return int(file.read().rpartition(")")[2].split()[36])
    except (OSError, ValueError, IndexError):
        return -1


def _keep_away(cores: list[set[int]], caller: int, member: int, members: int) -> None:
    """Have this thread, a member, run on cores that are neither the caller's nor another's."""
    here = _processor_of(caller)
    elsewhere = [core for core in cores if here not in core]
    own = set().union(*elsewhere[member - 1 :: members - 1])
    if here >= 0 and own and own != processors():
        with contextlib.suppress(OSError):  # the process may use other cores since
            os.sched_setaffinity(0, own)  # of this thread alone


class Signals:
    """The signals of one network's teams. Each call has its own; some are handed on."""

    def __init__(self) -> None:
        self.settings = dict(SETTINGS)

    def new(self) -> np.ndarray:
        """Return signals for one call."""
        signals = memory.aligned_zeros(len(PLACES) * PLACE_BYTES // 8, np.dtype(np.int64))
        for place, value in self.settings.items():
            signals[place // 8] = value
        return signals

    def keep(self, signals: np.ndarray) -> None:
        """Remember from a call how long the members stay away, and how long steps took."""
        for place in (RETURN_AT, PAUSE, TIME, STEPS, ALONE_TIME, ALONE_STEPS):
            self.settings[place] = int(signals[place // 8])

    def apart(self) -> bool:
        """Return whether it is not yet time for the members to come back."""
        later = self.settings[RETURN_AT]
        return later > 0 and time.clock_gettime_ns(time.CLOCK_MONOTONIC) < later


class ThreadPool:
    """Threads that sleep until they are asked to run a function."""

    def __init__(self) -> None:
        self._asked: list[SimpleQueue[Any]] = []
        self._threads: list[threading.Thread] = []
        self._processors: set[int] = set()
        self._cores: list[set[int]] = []

    def run(self, function: Callable[[int], object], members: int, signals: np.ndarray) -> None:
        """Run function(0) here and function(1), ... in other threads; return when all have ended.

        Those of the others end soon after that of member 0, or when an exception stops it. Where
        the system has no threads left, function(0) runs alone.
        """
        ended: list[BaseException | None] = []
        bell: SimpleQueue[None] = SimpleQueue()
        asked = 0
        if self._processors != processors():
            # a thread may run where the one that started it might at that time
            self.end()
            self._processors, self._cores = processors(), cores()
        if not self._start(members - 1):
            function(0)
            return
        caller = threading.get_native_id()

        def work(member: int) -> None:
            # the caller is at work by now, and stays where it is
            _keep_away(self._cores, caller, member, members)
            function(member)

        try:
            for member in range(1, members):
                self._asked[member - 1].put((work, member, ended, bell))
                asked += 1
            function(0)
        finally:
            signals[CALLED // 8] = END
            failures = _collect(ended, bell, asked)
        for failure in failures:
            raise failure

    def end(self) -> None:
        """Have all threads end, and wait for them."""
        for asked in self._asked:
            asked.put(None)
        for thread in self._threads:
            thread.join()
        self._asked, self._threads = [], []

    def _start(self, count: int) -> bool:
        """Have at least `count` threads; return whether the system let them start."""
        while len(self._threads) < count:
            asked: SimpleQueue[Any] = SimpleQueue()
            name = f"fastnn-{len(self._threads) + 1}"
            thread = threading.Thread(target=_serve, args=(asked,), name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # too many of them, or Python is about to exit
                return False
            self._asked.append(asked)
            self._threads.append(thread)
        return True


def _collect(
    ended: list[BaseException | None], bell: SimpleQueue[None], count: int
) -> list[BaseException]:
    """Wait until `count` threads have ended; return what went wrong, Ctrl-C meanwhile included.

    Each thread notes in `ended` how it ended, and then rings. The note is what counts: Ctrl-C may
    come when a ring has been taken out of the queue, and before it is here.
    """
    interrupts: list[BaseException] = []
    while len(ended) < count:
        try:
            bell.get()
        except KeyboardInterrupt as interrupt:
            interrupts.append(interrupt)
    return interrupts + [failure for failure in ended if failure is not None]


def _serve(asked: SimpleQueue[Any]) -> None:
    """Run what is asked for, until None is."""
    while (job := asked.get()) is not None:
        work, member, ended, bell = job
        failure = None
        try:
            work(member)
        except BaseException as error:
            failure = error
        ended.append(failure)
        bell.put(None)
        # an idle thread keeps nobody's memory
        del job, work, ended, bell, failure


_pool = ThreadPool()
_lock = threading.Lock()
"""Held by whoever uses the team."""


def run_together(function: Callable[[int], object], members: int, signals: np.ndarray) -> None:
    """Run function(member) for every member, the first of them here.

    Where another thread of Python has the team, this one runs function(0) alone: nobody is ever
    ready to join it.
    """
    if _lock.acquire(blocking=False):
        try:
            _pool.run(function, members, signals)
        finally:
            _lock.release()
    else:
        function(0)


def _before_fork() -> None:
    """A process that forks should have one thread; the team is started again when needed."""
    if _lock.acquire(blocking=False):
        try:
            _pool.end()
        finally:
            _lock.release()


def _in_child() -> None:
    """Threads don't follow into a child, and a lock may have been held."""
    global _pool, _lock
    _pool, _lock = ThreadPool(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_in_child)
