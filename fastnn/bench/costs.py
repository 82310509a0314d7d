"""What fastnn costs before and beside the arithmetic: imports, compilation, memory."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

_IMPORT = """
import json, sys, time
start = time.perf_counter()
import {module}
print(json.dumps(time.perf_counter() - start))
"""

_FIRST_STEP = """
import json, time
import numpy as np
start = time.perf_counter()
import fastnn
from fastnn.backends.numba_backend.epoch.step import run_batches
X, y = np.zeros((32, 784), np.uint8), np.arange(32) % 10
def fit(*units):
    layers = [fastnn.Rescaling(1 / 255)]
    for inputs, outputs in zip(units, units[1:]):
        layers += [fastnn.Dense(inputs, outputs), fastnn.ReLU()]
    fastnn.Network(layers[:-1], backend="numba", seed=0).fit(X, y)
fit(784, 100, 200, 10)
seconds = time.perf_counter() - start
compiled = run_batches.variants
fit(784, 77, 33, 5, 10)
print(json.dumps([seconds, run_batches.variants - compiled]))
"""

_MEMORY = """
import json, resource, sys
import numba
if sys.argv[1] == "train":
    import numpy as np
    import fastnn
    X, y, X_val, y_val, *_ = fastnn.load_dataset(flatten=True, dtype=np.uint8)
    units = 784, 100, 200, 10
    layers = [fastnn.Rescaling(1 / 255)]
    for inputs, outputs in zip(units, units[1:]):
        layers += [fastnn.Dense(inputs, outputs), fastnn.ReLU()]
    network = fastnn.Network(layers[:-1], backend="numba", seed=0)
    network.fit(X, y, epochs=2, validation_data=(X_val, y_val))
kibibyte = 1 if sys.platform == "darwin" else 1024
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kibibyte))
"""

DATA_BYTES = 70_000 * 784


@dataclass(frozen=True)
class Costs:
    """Each figure is a median where it was taken in rounds.

    Attributes
    ----------
    import_milliseconds : float
        Of `import fastnn` over `import numpy`, each in a process of its own, in turns.
    cold_seconds, warm_seconds : float
        From `import fastnn` to the end of the first training step in a new process, with an empty
        cache of compiled kernels and with a full one.
    compiled_for_new_shape : int
        Functions compiled for a network of a shape not seen before.
    memory_megabytes : float
        Peak memory of training MNIST from raw pixels, over that of `import numba` and over the
        raw pixels themselves.
    """

    import_milliseconds: float
    cold_seconds: float
    warm_seconds: float
    compiled_for_new_shape: int
    memory_megabytes: float


def measure_costs(rounds: int = 7) -> Costs:
    """Measure the costs in processes of their own."""
    imports = [
        _run(_IMPORT.format(module="fastnn")) - _run(_IMPORT.format(module="numpy"))
        for _ in range(rounds)
    ]
    with tempfile.TemporaryDirectory() as cache:
        cold, _ = _run(_FIRST_STEP, NUMBA_CACHE_DIR=cache)
        warm = [_run(_FIRST_STEP, NUMBA_CACHE_DIR=cache) for _ in range(rounds)]
        # Once more where everything is compiled, as compiling takes memory of its own.
        _run(_MEMORY, "train", NUMBA_CACHE_DIR=cache)
        training, imported = (
            _run(_MEMORY, what, NUMBA_CACHE_DIR=cache) for what in ("train", "import")
        )
    return Costs(
        import_milliseconds=median(imports) * 1e3,
        cold_seconds=cold,
        warm_seconds=median(seconds for seconds, _ in warm),
        compiled_for_new_shape=max(compiled for _, compiled in warm),
        memory_megabytes=(training - imported - DATA_BYTES) / 1e6,
    )


def _run(program: str, *arguments: str, **variables: str) -> Any:
    package_root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path} | variables
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # imports compile once, not every time
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout)
