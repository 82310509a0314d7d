"""Five kernels to write: ``python -m benchmarks.exercises [N] [--file MINE.py]``.

Each `e*.py` states a task and has a function without a body. Fill it in where it stands, or in a
copy that is named by ``--file``. The command checks what it computes first, on shapes that kernels
fail on, and only then measures it in turn with a kernel of the ladder or of the package.
`docs/exercises.md` leads through them.

`tasks.py` says for each what it is given and what it must come to, `checking.py` and `racing.py`
find out.
"""
