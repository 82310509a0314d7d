"""Faces of the table `fastnn.bench.WORKLOADS`: one for asv, one for pytest-benchmark."""

import fastnn
from fastnn.bench import WORKLOADS, Workload

BACKENDS = fastnn.available_backends()
TRAINING = {w.name: w for w in WORKLOADS if w.operation == "minibatch_sgd"}
KERNELS = {w.name: w for w in WORKLOADS if w.name not in TRAINING}

__all__ = ["BACKENDS", "KERNELS", "TRAINING", "WORKLOADS", "Workload"]
