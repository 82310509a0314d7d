"""A sweep on a Dask cluster
============================

The cluster has several worker processes, one of which is killed on the way.

What to see: `fastnn sweep --dask ADDRESS` hands each training to a worker and
keeps its result as soon as it comes. A worker that dies takes no result with it:
what it was computing, another one computes. All results are those of the same
sweep on this machine alone, bit for bit. Where scikit-learn is installed, so are
the scores of its GridSearchCV over fastnn's estimator, under
`joblib.parallel_config("dask")`.

The cluster here is of this machine, processes of one thread each. On several
machines it is `dask scheduler` on one and `dask worker ADDRESS` on each, with
fastnn installed.

::

    python examples/dask_cluster.py             three workers, twelve trainings of five epochs
    python examples/dask_cluster.py --quick     two workers, six trainings of one epoch
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import conclude, parse_options
from distributed import Client, LocalCluster

import fastnn

try:
    import joblib
    from sklearn.model_selection import GridSearchCV

    from fastnn.sklearn import MLPClassifier
except ImportError:
    MLPClassifier = None

KILLED_AFTER = 2


def sweep(quick: bool, out: Path, *options: str) -> subprocess.Popen[str]:
    """Begin a sweep whose results go to `out`; return the process."""
    command = [sys.executable, "-m", "fastnn", "sweep", "--hidden", "30", "--hidden", "100", "200"]
    command += ["--epochs", "1"] if quick else ["--epochs", "5", "--learning-rate", "0.1", "0.3"]
    command += ["--seeds", "3", "--out", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def results(path: Path) -> list[dict]:
    """Return what a sweep kept, but for times, in an order that does not depend on chance."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        del record["seconds"]
    return sorted(records, key=json.dumps)


def kill_a_worker(address: str) -> None:
    """Kill one of the worker processes, as a machine that fails would."""
    with Client(address, set_as_default=False) as client:
        (worker, process), *others = client.run(os.getpid).items()
    os.kill(process, signal.SIGKILL)
    print(f"killed the worker {worker}; {len(others)} are left", flush=True)


def grid_search(quick: bool) -> np.ndarray:
    """Return the scores [settings, folds] of a grid search."""
    X, y, *_ = fastnn.load_dataset(flatten=True)
    samples, folds = (1000, 2) if quick else (10_000, 5)
    grid = {"hidden_layer_sizes": [(30,), (100, 200)], "learning_rate_init": [0.001, 0.01]}
    # one thread each, as there is a worker for each core
    estimator = MLPClassifier(
        early_stopping=True, tol=0.01, n_iter_no_change=3, random_state=0, threads=1
    )
    search = GridSearchCV(estimator, grid, cv=folds).fit(X[:samples], y[:samples])
    return np.array([search.cv_results_[f"split{fold}_test_score"] for fold in range(folds)]).T


def main() -> None:
    """Run the sweep on a cluster, then on this machine, and compare."""
    options = parse_options(__doc__)
    workers = 2 if options.quick else 3
    with tempfile.TemporaryDirectory() as folder:
        far, near = Path(folder) / "cluster.jsonl", Path(folder) / "here.jsonl"
        with LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster:
            address = cluster.scheduler_address
            running = sweep(options.quick, far, "--dask", address, "--plot", str(options.output))
            count = 0
            for line in running.stdout:
                print(line, end="", flush=True)
                count += "val accuracy 0" in line
                if count == KILLED_AFTER:
                    kill_a_worker(address)
                    count += 1
            complete = running.wait() == 0
            if MLPClassifier is not None:
                with Client(cluster), joblib.parallel_config("dask"):
                    far_scores = grid_search(options.quick)
        print("\nthe same on this machine:")
        alone = sweep(options.quick, near)
        print(alone.communicate()[0])
        claims = {
            "a worker was killed, and no training was without a result": complete
            and count > KILLED_AFTER,
            "the results are those of this machine alone, bit for bit": alone.returncode == 0
            and results(far) == results(near),
        }
    if MLPClassifier is not None:
        near_scores = grid_search(options.quick)
        print("mean scores of the grid search:", *(f"{score:.4f}" for score in near_scores.mean(1)))
        same = bool((far_scores == near_scores).all())
        claims["the scores of GridSearchCV are those of this machine alone"] = same
    conclude(claims)


if __name__ == "__main__":
    main()
