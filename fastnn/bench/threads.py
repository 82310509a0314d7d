"""The variables that tell libraries how many threads to take, which they read when imported.

Who sets them before NumPy is imported runs this file by its path, as importing it imports fastnn.
"""

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
