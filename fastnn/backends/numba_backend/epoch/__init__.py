"""The compiled epoch: whole minibatches, through all layers and back, in one compiled call.

Here belongs what turns a network into a table (`blocks.py`, `records.py`, `table.py`,
`program.py`), the step that reads the table (`step.py`, `forward.py`, `backward.py`) with the
operations it calls (`stages.py`, `losses.py`, `optimizers.py`, `one_sample.py`), and the threads
that share a step (`sharing.py`, `meetings.py`, `threads.py`, `team.py`). A kernel that the layer
path could use as well belongs in `kernels/`.
"""
