"""Locks: of an object that threads share, and of a file that processes share."""

from __future__ import annotations

import errno
import itertools
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, Self, TypeVar, overload

from fastnn.interrupts import uncut

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

Value = TypeVar("Value")

BEHIND_THE_END = 0x7FFF_FFFF
"""The byte that is locked on Windows, where nobody else can read or write what is."""


SLOTS = 4
"""Threads that can read without one having to wait for another, if they are lucky."""


class _OwnSlot(threading.local):
    """The number of the slot of the thread that asks: threads take them in turn.

    Tried and lost: one by the number of the thread. Numbers are addresses, apart by a multiple of a
    page of 16 KiB on some systems, so that all threads had one slot; on Windows by 4.
    """

    _turns = itertools.cycle(range(SLOTS))

    def __init__(self) -> None:
        self.number = next(self._turns)


_own_slot = _OwnSlot()


class ReadersWriterLock:
    """Held by one thread that changes something, or by any number of threads that read it.

    A reader takes one lock of a few, the same one each time; a writer takes all. They can be taken
    again by a thread that has them, but who reads may not begin to write.

    Attributes
    ----------
    slots : tuple of SLOTS locks
        To hold all of them, in order, is to write.
    """

    def __init__(self) -> None:
        self._renew()
        _all.add(self)

    def _renew(self) -> None:
        self.slots = tuple(threading.RLock() for _ in range(SLOTS))

    def reading(self) -> threading.RLock:
        """Return what to hold by `with` as long as nothing may change."""
        return self.slots[_own_slot.number]

    def alone(self, function: Callable[[], Value]) -> Value:
        """Call a function in the only thread that reads or changes anything; it is `uncut`.

        Ctrl-C, which may come between any two instructions of Python, leaves no lock taken, and is
        heard while another thread is waited for.
        """
        first, second, third, fourth = self.slots
        with first, second, third, fourth, uncut:
            return function()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only thread that reads or changes anything.

        Ctrl-C in the midst of it may leave the locks taken for as long as somebody keeps the
        traceback, so who trains is `alone`.
        """
        first, second, third, fourth = self.slots
        with first, second, third, fourth:
            yield


class cached_attribute(Generic[Value]):  # noqa: N801 - used as a decorator
    """A property that is computed when first asked for, and kept; two threads may compute it twice.

    `functools.cached_property` holds a lock while it computes, before Python 3.12 the same one for
    all objects: threads that share nothing wait for each other, and the child of a fork may wait
    for a thread that it does not have.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute, self.__doc__ = compute, compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object, owner: type) -> Value | Self:
        if instance is None:
            return self
        # found here no more, once it is among the attributes of the instance itself
        value = instance.__dict__[self._compute.__name__] = self._compute(instance)
        return value


_all: weakref.WeakSet[ReadersWriterLock] = weakref.WeakSet()


def _in_child() -> None:
    """Threads don't follow into a child, and would never give back what they held."""
    for lock in list(_all):
        lock._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def unlock(file: int) -> None:
    """Give the lock of a file back, also where a child of a fork has the file open as well."""
    if sys.platform != "win32":  # where none forks
        fcntl.flock(file, fcntl.LOCK_UN)


def locked(file: int) -> bool:
    """Lock the file of a descriptor; return False where another process has the lock.

    It goes back when the file is closed, everywhere. This is the one place that knows how systems
    do it.

    Raises
    ------
    OSError
        If there are no locks in that file system.
    """
    if sys.platform == "win32":
        place = os.lseek(file, 0, os.SEEK_CUR)
        os.lseek(file, BEHIND_THE_END, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EDEADLK):
                raise
            return False
        finally:
            os.lseek(file, place, os.SEEK_SET)
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
