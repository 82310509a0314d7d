"""The variables that libraries read when they are imported: for their threads and their kernels.

Who sets them before NumPy is imported runs this file by its path, as importing it imports fastnn.
"""

import os

#: Of the libraries that multiply matrices for NumPy.
BLAS_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",  # Apple's Accelerate
)
THREAD_VARIABLES = (
    *BLAS_VARIABLES,
    "NUMBA_NUM_THREADS",
    "FASTNN_NUM_THREADS",
    "NPROC",  # the size of XLA's thread pool
)

#: What has OpenBLAS take other kernels, or other block sizes, than it would choose by itself.
CHOSEN_KERNELS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def let_openblas_choose() -> None:
    """Drop what would have OpenBLAS take other kernels, here and in processes that are started."""
    for name in CHOSEN_KERNELS:
        os.environ.pop(name, None)
