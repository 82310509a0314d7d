"""A team of threads that run the same compiled function together.

The members of a team are the thread that calls, member 0, and daemon threads of Python
that were started once and sleep between calls. The compiled function, which runs
without the interpreter's lock, divides its work by the member's number, and its members wait for
each other at meetings. What they say to each other are 64-bit words, each in a place of its
own that only one of them writes:

    arrived     of each member: how many meetings it has come to
    ready       of each member: it waits to be called
    called      by the caller: the number of the step that all begin with, or END
    late        of anyone: somebody has been waited for too long, or has no core of its own
    parting     by the caller: the number of the step after which all part

The caller works alone until every member is ready, calls them, and waits for none before they
have come. So nobody waits for a thread that is starting, or that the operating system has put aside
in favour of another program. When one is put aside in the middle of a step, somebody waits for it
in a meeting; after a millisecond of that the members part at the end of the step, the caller goes
on alone, and they come back after a pause, which doubles each time that they part early. They part
as well when two of them were put on one core, where they would take turns: a member that
offered its processor to others gets it back late then. Who sleeps is given an idle core on waking.
They part, too, when the best of their steps took longer than the best that the caller took alone:
two cores that share no cache, or not the whole of a core each, can be slower than one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np

from fastnn import memory

from .jit import jit_part
from .simd import HAS_POSIX, Int, Kernel, microkernel

MOST_MEMBERS = 4 if HAS_POSIX else 1
"""Members of the largest team."""

PLACE_BYTES = 128
"""Between words of different writers: processors fetch cache lines in pairs."""

END = -1
"""What the caller calls at the end: there is no step to come."""

PLACES = {
    name: PLACE_BYTES * number
    for number, name in enumerate(
        (
            *(f"arrived {member}" for member in range(4)),
            *(f"ready {member}" for member in range(4)),
            "called", "late", "parting",
            # settings, and what the caller notes for itself
            "polls", "patience", "offered", "taken",
            "alone", "together", "steps",
            "pause", "first pause", "longest pause", "return at", "called at",
        )
    )
}  # fmt: skip
"""Where each word lies, in bytes from the first."""

ARRIVED, READY = PLACES["arrived 0"], PLACES["ready 0"]
CALLED, LATE, PARTING = PLACES["called"], PLACES["late"], PLACES["parting"]
POLLS, PATIENCE, PAUSE = PLACES["polls"], PLACES["patience"], PLACES["pause"]
OFFERED, TAKEN = PLACES["offered"], PLACES["taken"]
ALONE, TOGETHER, STEPS = PLACES["alone"], PLACES["together"], PLACES["steps"]
FIRST_PAUSE, LONGEST_PAUSE = PLACES["first pause"], PLACES["longest pause"]
RETURN_AT, CALLED_AT = PLACES["return at"], PLACES["called at"]

SETTINGS = {
    POLLS: 1000,  # looks at a word before the processor is offered to others
    PATIENCE: 1_000_000,  # nanoseconds that a member may be late
    OFFERED: 5_000,  # nanoseconds that others may take of a processor which is offered
    TAKEN: 8,  # times that they may take longer
    FIRST_PAUSE: 4_000_000,  # nanoseconds apart after parting for the first time
    LONGEST_PAUSE: 256_000_000,
    PAUSE: 4_000_000,
    RETURN_AT: 0,
    ALONE: 0,  # nanoseconds of a step that the caller took alone, 0 if unknown
}

STEPS_TO_JUDGE = 16
"""Steps together after which they are compared with those that the caller took alone."""


# ----------------------------------------------------------------- inside a compiled function


@microkernel
def heard(k: Kernel, address: Int) -> Int:
    """The word at an address."""
    return k.load_shared(address)


@microkernel
def say(k: Kernel, number: Int, address: Int) -> None:
    """Change the word at an address."""
    k.store_shared(number, address)


@microkernel
def clock(k: Kernel) -> Int:
    """Nanoseconds since some moment."""
    return k.clock()


@microkernel
def wait(k: Kernel, words: Int, member: Int, members: Int, meeting: Int) -> None:
    """Wait until all members have come to a meeting; note if somebody was late.

    Why it is fast: each member writes one word, in a cache line that it alone writes; so a
    meeting costs one transfer of a line to each other member. A member that has waited for some
    microseconds offers its processor to others: the one for which it waits may need it.
    Tried and lost: parting for lateness alone. Two members on one core take turns, neither is ever
    late, and both together are slower than one alone.
    """
    # how often others took the processor: beside the word that this member writes anyway
    taken = words + ARRIVED + member * PLACE_BYTES + 8
    with k.loop(0, members) as other:
        word = words + ARRIVED + other * PLACE_BYTES
        polls = k.variable(k.integer(0))
        since = k.variable(k.integer(0))
        with k.loop_while(lambda: k.load_shared(word) < meeting):
            polls[0] = polls[0] + 1
            with k.when(polls[0] > k.load_integer(words + POLLS)):
                before = k.clock()
                k.yield_processor()
                now = k.clock()
                since[0] = k.where(since[0].equals(0), before, since[0])
                with k.when(now - since[0] > k.load_integer(words + PATIENCE)):
                    k.store_shared(1, words + LATE)
                with k.when(now - before > k.load_integer(words + OFFERED)):
                    k.store_integer(k.load_integer(taken) + 1, taken)
                    with k.when(k.load_integer(taken) > k.load_integer(words + TAKEN)):
                        k.store_shared(1, words + LATE)


@microkernel
def answer(k: Kernel, words: Int, member: Int, last: Int) -> Int:
    """Come back when it is time, be ready, and return the number that is called.

    `last` is what was called before. Who stays away sleeps a millisecond at a time, so that
    the end is heard soon; who is ready waits for a step of the caller, at most.
    """
    called = words + CALLED

    def go_on():
        return k.load_shared(called).differs(END)

    with k.loop_while(
        lambda: k.builder.and_(go_on(), k.clock() < k.load_shared(words + RETURN_AT))
    ):
        k.sleep(1000)
    k.store_integer(k.integer(0), words + ARRIVED + member * PLACE_BYTES + 8)
    k.store_shared(1, words + READY + member * PLACE_BYTES)
    polls = k.variable(k.integer(0))
    with k.loop_while(lambda: k.load_shared(called).equals(last)):
        polls[0] = polls[0] + 1
        with k.when(polls[0] > k.load_integer(words + POLLS)):
            k.yield_processor()
    return k.load_shared(called)


@jit_part
def call(words, members, step):
    """Call the members to begin with a step if all of them are ready; return whether they are."""
    for other in range(1, members):
        if heard(words + READY + other * PLACE_BYTES) == 0:
            return False
    for other in range(1, members):
        say(0, words + READY + other * PLACE_BYTES)
    say(0, words + LATE)
    say(0, words + ARRIVED + 8)
    say(0, words + TOGETHER)
    say(0, words + STEPS)
    say(clock(), words + CALLED_AT)
    say(step, words + CALLED)
    return True


@jit_part
def arrive(words, member, members, meeting):
    """Come to the next meeting, without waiting for the others; return its number.

    Who is alone holds no meetings: all members have counted the same when they come together.
    """
    if members == 1:
        return meeting
    say(meeting + 1, words + ARRIVED + member * PLACE_BYTES)
    return meeting + 1


@jit_part
def meet(words, member, members, meeting):
    """Come to the next meeting and wait for the others; return its number."""
    meeting = arrive(words, member, members, meeting)
    if members > 1:
        wait(words, member, members, meeting)
    return meeting


@jit_part
def decide_to_part(words, step):
    """The caller, before a meeting: have all part after this step if that is better.

    Those who part again before they were together for as long as they had been apart come back
    later and later, up to a limit.
    """
    alone = heard(words + ALONE)
    judged = heard(words + STEPS) > STEPS_TO_JUDGE
    slow = judged and alone != 0 and heard(words + TOGETHER) > alone
    if slow or heard(words + LATE) != 0:
        now = clock()
        pause = heard(words + PAUSE)
        if not slow and now - heard(words + CALLED_AT) > pause:
            pause = heard(words + FIRST_PAUSE)
        say(now + pause, words + RETURN_AT)
        say(min(2 * pause, heard(words + LONGEST_PAUSE)), words + PAUSE)
        say(step, words + PARTING)


@jit_part
def note_time(words, size, nanoseconds):
    """The caller, after a whole step: note how long the best of recent steps took."""
    place = words + (ALONE if size == 1 else TOGETHER)
    best = heard(place)
    say(nanoseconds if best == 0 else min(nanoseconds, best + best // 256), place)
    if size > 1:
        say(heard(words + STEPS) + 1, words + STEPS)


@jit_part
def parted(words, step):
    """Whether the caller has decided, before a meeting of this step, that all part after it."""
    return heard(words + PARTING) == step


# ------------------------------------------------------------------------------- in Python


def _processors() -> set[int]:
    """Return the processors on which this thread may run."""
    try:
        return os.sched_getaffinity(0)
    except AttributeError:  # not on this system
        return set(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """Return on how many cores the process may run; those that two processors share count once."""
    cores = set()
    for processor in _processors():
        try:
            topology = f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings_list"
            with open(topology, encoding="ascii") as file:
                cores.add(file.read())
        except OSError:
            cores.add(str(processor))
    return len(cores)


class Words:
    """The words of one network's teams. Each call has its own; how long to pause is handed on."""

    def __init__(self) -> None:
        self.settings = dict(SETTINGS)

    def new(self) -> np.ndarray:
        """Return words for one call."""
        words = memory.aligned_zeros(len(PLACES) * PLACE_BYTES // 8, np.dtype(np.int64))
        for place, value in self.settings.items():
            words[place // 8] = value
        return words

    def keep(self, words: np.ndarray) -> None:
        """Remember from a call how long the members stay away."""
        for place in (PAUSE, RETURN_AT, ALONE):
            self.settings[place] = int(words[place // 8])


class Team:
    """Threads that sleep until they are asked to run a function."""

    def __init__(self) -> None:
        self._asked: list[SimpleQueue[Any]] = []
        self._threads: list[threading.Thread] = []
        self._processors: set[int] = set()

    def run(self, function: Callable[[int], object], members: int, words: np.ndarray) -> None:
        """Run function(0) here and function(1), ... in other threads; return when all have ended.

        Those of the others end soon after that of member 0, or when an exception stops it.
        """
        ended: SimpleQueue[BaseException | None] = SimpleQueue()
        asked = 0
        if self._processors != _processors():
            # a thread may run where the one that started it might at that time
            self.end()
            self._processors = _processors()
        try:
            for member in range(1, members):
                self._start(member)
                self._asked[member - 1].put((function, member, ended))
                asked += 1
            function(0)
        finally:
            words[CALLED // 8] = END
            failures = _collect(ended, asked)
        for failure in failures:
            raise failure

    def end(self) -> None:
        """Have all threads end, and wait for them."""
        for asked in self._asked:
            asked.put(None)
        for thread in self._threads:
            thread.join()
        self._asked, self._threads = [], []

    def _start(self, member: int) -> None:
        """Start the thread of a member unless it is there."""
        while len(self._threads) < member:
            asked: SimpleQueue[Any] = SimpleQueue()
            name = f"fastnn-{len(self._threads) + 1}"
            thread = threading.Thread(target=_serve, args=(asked,), name=name, daemon=True)
            thread.start()
            self._asked.append(asked)
            self._threads.append(thread)


def _collect(ended: SimpleQueue[Any], count: int) -> list[BaseException]:
    """Wait until `count` threads have ended; return what went wrong, Ctrl-C meanwhile included."""
    failures: list[BaseException] = []
    while count:
        try:
            failure = ended.get()
        except KeyboardInterrupt as interrupt:
            failures.append(interrupt)
            continue
        count -= 1
        if failure is not None:
            failures.append(failure)
    return failures


def _serve(asked: SimpleQueue[Any]) -> None:
    """Run what is asked for, until None is."""
    while (job := asked.get()) is not None:
        function, member, ended = job
        failure = None
        try:
            function(member)
        except BaseException as error:
            failure = error
        ended.put(failure)
        # an idle thread keeps nobody's memory
        del job, function, ended, failure


_team = Team()
_lock = threading.Lock()
"""Held by whoever uses the team."""


def run_together(function: Callable[[int, int], object], members: int, words: np.ndarray) -> None:
    """Run function(member, members) for every member, the first of them here.

    Where another thread of Python has the team, this one runs the function alone.
    """
    if members > 1 and _lock.acquire(blocking=False):
        try:
            _team.run(lambda member: function(member, members), members, words)
        finally:
            _lock.release()
    else:
        function(0, 1)


def _before_fork() -> None:
    """A process that forks should have one thread; the team is started again when needed."""
    if _lock.acquire(blocking=False):
        try:
            _team.end()
        finally:
            _lock.release()


def _in_child() -> None:
    """Threads don't follow into a child, and a lock may have been held."""
    global _team, _lock
    _team, _lock = Team(), threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_in_child)
