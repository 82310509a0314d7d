"""Microkernels that both wings of the backend, `layerwise/` and `epoch/`, use or could use.

Here belongs what computes on addresses and is called from compiled code: matrix products, products
that skip zeros, elementary functions and activations, softmax, the formulas of optimisers, random
numbers, and work on rows. What reads an array object belongs in `layerwise/`; what knows of
batches, tables or threads belongs in `epoch/`. `limits.py` alone is for neither of them: its
kernels find what the machine can do, for `fastnn bench`.
"""
