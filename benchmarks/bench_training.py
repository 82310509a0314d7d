"""asv: throughput of minibatch SGD on MNIST on both backends, and the loss that it ends with."""

import time

from . import BACKENDS, TRAINING


class MinibatchSGD:
    """An epoch from the same parameters every time."""

    params = (list(TRAINING), BACKENDS)
    param_names = ("workload", "backend")

    def setup(self, workload: str, backend: str) -> None:
        self.call = TRAINING[workload].setup(backend)
        TRAINING[workload].check(self.call())

    def time_epoch(self, workload: str, backend: str) -> None:
        self.call()

    def track_samples_per_second(self, workload: str, backend: str) -> float:
        def seconds() -> float:
            start = time.perf_counter()
            self.call()
            return time.perf_counter() - start

        return TRAINING[workload].params["samples"] / min(seconds() for _ in range(3))

    def track_loss(self, workload: str, backend: str) -> float:
        return self.call()

    track_samples_per_second.unit = "samples/s"
    track_loss.unit = "nats"
