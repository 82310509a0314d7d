"""The lock of an open file, which one process has at a time. It goes back when the file is closed.

The one place that knows how a system does this.
"""

from __future__ import annotations

import errno
import os
import sys

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

BEHIND_THE_END = 0x7FFF_FFFF
"""The byte that is locked on Windows, where nobody else can read or write what is."""


def locked(file: int) -> bool:
    """Lock the file of a descriptor; return False where another process has the lock.

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
