"""How text becomes machine code, and where that is kept.

`joining.py` writes the parts of a function into one text, `frontend.py` has Numba make LLVM's
instructions of it, by `lean.py` and with what `intrinsics.py` says of calls, `objects.py` has LLVM
make machine code of these and puts it into memory, and `cache.py` keeps it on the disk by the
digest of `sources.py`. These three of Numba's are imported when something is compiled, so a process
that finds all code on the disk runs without; whether Numba would work is noted by `presence.py`.
"""
