"""asv: the time of every kernel on both backends, a class for each operation."""

from . import BACKENDS, KERNELS


class _Kernel:
    """Made and checked in `setup`, so that compilation and errors stay out of the time."""

    param_names = ("workload", "backend")

    def setup(self, workload: str, backend: str) -> None:
        self.call = KERNELS[workload].setup(backend)
        KERNELS[workload].check(self.call())

    def time_kernel(self, workload: str, backend: str) -> None:
        self.call()


for _operation in {workload.operation for workload in KERNELS.values()}:
    _names = [name for name, workload in KERNELS.items() if workload.operation == _operation]
    globals()[_operation] = type(_operation, (_Kernel,), {"params": (_names, BACKENDS)})
