"""The threads that a team runs on: a pool of them, and the cores where they are placed.

The members of a team are the thread that calls, member 0, and daemon threads of Python that were
started once and sleep between calls. What they do together, and how they meet in it, is in
`meetings.py`.

A member keeps away from the core of the caller, and from those of other members. Left alone, the
operating system wakes a thread now and then on the core of the one that wakes it, and two
threads which offer each other their processor stay there.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np

from fastnn.processors import cores, processors

from .meetings import CALLED, END, PATIENCE


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
            _run_alone(function, signals)
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
            # one store of 64 bits, which nothing is ordered by: who reads it only stops
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
        _run_alone(function, signals)


def _run_alone(function: Callable[[int], object], signals: np.ndarray) -> None:
    """Run function(0), which waits for nobody."""
    signals[PATIENCE // 8] = 0
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
