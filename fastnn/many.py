"""Several networks at once: each on one core, all in one process."""

from __future__ import annotations

import contextvars
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy.typing as npt

from fastnn import checks, extras, hints, samples, training
from fastnn.callbacks import Callback
from fastnn.checks import Array
from fastnn.network import Network
from fastnn.processors import usable
from fastnn.training import History

if TYPE_CHECKING:
    from concurrent.futures import Future

Result = TypeVar("Result")

CONNECTING_SECONDS = 10
"""How long a scheduler may take to answer."""


def fit_many(
    networks: Sequence[Network],
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    epochs: int = 1,
    batch_size: int = 32,
    workers: int | None = None,
    shuffle: bool = True,
    drop_last: bool = False,
    sample_weight: npt.ArrayLike | None = None,
    class_weight: str | Mapping[int, float] | npt.ArrayLike | None = None,
    validation_data: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    validation_split: float | None = None,
    train_accuracy: bool = False,
    on_divergence: str = "raise",
    progress: bool = False,
    callbacks: Sequence[Iterable[Callback | Callable[[Network, History], object]]] | None = None,
) -> list[History]:
    """Train several networks on the same data at the same time, each on one thread.

    Each ends with the bits that `Network.fit(..., threads=1)` would have given it alone, whatever
    `workers` is.

    Parameters
    ----------
    networks
        Of any layers, losses and optimisers. They share no random generator.
    X, y, epochs, batch_size, shuffle, drop_last, sample_weight, class_weight
        As `Network.fit` takes them, for every network.
    validation_data, validation_split, train_accuracy, on_divergence
        Likewise.
    workers
        How many networks train at a time; by default as many as the process may use processors.
    progress
        Show a bar of the networks that are ready.
    callbacks
        For each network those of its own, `[[EarlyStopping()] for _ in networks]`, as callbacks
        remember things. Each is called in the thread that trains its network.

    Returns
    -------
    list of History
        In the order of the networks.

    Raises
    ------
    ValueError, TypeError
        As `Network.fit`, with a note that says which network it was; before any training, where
        the data do not suit a network. And if a network or a generator is given twice.
    DivergenceError
        As `Network.fit`, with such a note. Under "warn" the other networks train on.
    KeyboardInterrupt
        On Ctrl-C, when all have stopped.

    Notes
    -----
    Where one raises, the others stop as well. What they have learned until then is theirs, and
    `network.history` tells how far each came.

    Compiled epochs release Python's lock, so cores are busy. Layers, losses and callbacks of your
    own are Python, which one thread runs at a time; networks on the NumPy backend share the threads
    of its BLAS.
    """
    networks = _checked(networks)
    told: list[Any] = (
        [() for _ in networks] if callbacks is None else _one_each(callbacks, networks)
    )
    workers = usable() if workers is None else checks.integer("workers", workers, minimum=1)
    checks.flag("progress", progress)
    columns = hints.names_of_columns(X)
    X = checks.matrix("X", X)
    for number, network in enumerate(networks):
        try:
            samples.checked(network, X, y)
        except (ValueError, TypeError) as error:
            raise _of_network(number, error) from None
    jobs = [
        partial(
            _fit,
            network,
            columns,
            X,
            y,
            epochs=epochs,
            batch_size=batch_size,
            threads=1,
            shuffle=shuffle,
            drop_last=drop_last,
            sample_weight=sample_weight,
            class_weight=class_weight,
            validation_data=validation_data,
            validation_split=validation_split,
            train_accuracy=train_accuracy,
            on_divergence=on_divergence,
            callbacks=of_network,
        )
        for network, of_network in zip(networks, told, strict=True)
    ]
    histories: dict[int, History] = {}
    with _bar(len(jobs)) if progress else nullcontext() as bar:
        for number, future in in_threads(jobs, workers):
            try:
                histories[number] = future.result()
            except Exception as error:
                raise _of_network(number, error) from None
            if bar is not None:
                bar.update()
    return [histories[number] for number in range(len(jobs))]


def _fit(
    network: Network, columns: hints.Names, X: Array, y: npt.ArrayLike, **options: Any
) -> History:
    """Train on what was a table with these names of columns, if it has any."""
    hints.NAMED.set(hints.Named(X, columns))
    return network.fit(X, y, **options)


def in_threads(
    jobs: Sequence[Callable[[], Result]], workers: int
) -> Iterator[tuple[int, Future[Result]]]:
    """Run jobs, so many at a time; yield the number of each that has ended, and its result.

    When the loop over them is left, by an exception or Ctrl-C, no further job begins, and trainings
    that run raise KeyboardInterrupt; then they have ended before it goes on.
    """
    # imported here as they would be a tenth of the time that `import fastnn` takes
    from concurrent.futures import Future, ThreadPoolExecutor
    from queue import Empty, SimpleQueue

    stop = threading.Event()
    ended: SimpleQueue[Future[Result]] = SimpleQueue()

    caller = hints.line_outside()

    def run(job: Callable[[], Result]) -> Result:
        training.STOP.set(stop)
        hints.CALLER.set(caller)
        return job()

    numbers: dict[Future[Result], int] = {}
    workers = _available(min(workers, len(jobs)))
    if not workers:
        for number, job in enumerate(jobs):
            future: Future[Result] = Future()
            try:
                future.set_result(contextvars.copy_context().run(run, job))
            except Exception as error:
                future.set_exception(error)
            yield number, future
        return
    with ThreadPoolExecutor(workers, "fastnn-many") as pool:
        try:
            for job in jobs:
                # in the caller's context, which says what `use_backend` and `np.errstate` have set
                future = pool.submit(contextvars.copy_context().run, run, job)
                numbers[future] = len(numbers)
                future.add_done_callback(ended.put)
            while numbers:
                try:
                    # on Windows a wait without an end would not hear Ctrl-C
                    future = ended.get(timeout=1)
                except Empty:
                    continue
                yield numbers.pop(future), future
        finally:
            stop.set()
            for future in numbers:
                future.cancel()


def _available(count: int) -> int:
    """Return how many threads the system lets start of so many, which a pool would not forgive."""
    end = threading.Event()
    started: list[threading.Thread] = []
    try:
        for _ in range(count):
            thread = threading.Thread(target=end.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError:
        pass  # there are too many
    finally:
        end.set()
    for thread in started:
        thread.join()
    return len(started)


def on_cluster(
    jobs: Iterable[Callable[[], Result]], address: str
) -> Iterator[tuple[int, Future[Result]]]:
    """Run jobs, which can be pickled, on the workers of a Dask cluster; yield as `in_threads` does.

    As many run at a time as the workers have threads. What a worker had begun when it died, or had
    ready but not yet handed over, another one computes. When the loop is left, no further job
    begins; those that run are not waited for.

    Raises
    ------
    ImportError
        If distributed is not installed.
    ValueError
        If `address` is none.
    OSError
        If there is no scheduler.
    """
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise ImportError(
            f"--dask: expected distributed to be installed: {extras.install('dask')}"
        ) from None
    # a client that is refused because of this would not go away for a minute
    if not re.fullmatch(r"((tcp|tls|ucx|wss?)://)?[^\s/]+:\d+", address):
        raise ValueError(
            f"--dask: expected the address of a scheduler, as tcp://10.0.0.1:8786, got {address!r}"
        )
    try:
        client = Client(address, set_as_default=False, timeout=CONNECTING_SECONDS)
    except OSError as error:
        raise OSError(f"--dask: expected a scheduler at {address}, found none: {error}") from error
    with client:
        numbers = {client.submit(job, pure=False): number for number, job in enumerate(jobs)}
        try:
            for future in as_completed(list(numbers), loop=client.loop):
                yield numbers.pop(future), future
                # else the death of its worker would have it computed again
                future.release()
        finally:
            client.cancel(list(numbers))


def _checked(networks: object) -> list[Network]:
    """Return the networks as a list, if they are some that can train beside each other."""
    if isinstance(networks, Network) or not isinstance(networks, Iterable):
        raise TypeError(f"networks: expected networks in a list, got {networks!r}")
    listed = list(networks)
    owners: dict[int, int] = {}
    for number, network in enumerate(listed):
        if not isinstance(network, Network):
            raise TypeError(f"networks[{number}]: expected a fastnn.Network, got {network!r}")
        if any(network is other for other in listed[:number]):
            raise ValueError(f"networks[{number}]: expected another network than those before it")
        # the order of draws from one that two share would be a matter of chance
        owner = owners.setdefault(id(network._rng.bit_generator), number)
        if owner != number:
            raise ValueError(
                f"networks[{number}]: expected a random generator of its own, got that of "
                f"networks[{owner}]; give each network a seed"
            )
    return listed


def _one_each(callbacks: object, networks: Sequence[Network]) -> list[list[Any]]:
    """Return the callbacks of each network, none of which serves two."""
    if not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks: expected a list for each network, got {callbacks!r}")
    lists = list(callbacks)
    for of_network in lists:
        if callable(of_network) or not isinstance(of_network, Iterable):
            raise TypeError(f"callbacks: expected a list for each network, got {of_network!r}")
    if len(lists) != len(networks):
        raise ValueError(
            f"callbacks: expected a list for each of {len(networks)} networks, got {len(lists)}"
        )
    lists = [list(of_network) for of_network in lists]
    seen: set[int] = set()
    for of_network in lists:
        # a function may serve all
        own = {id(callback) for callback in of_network if isinstance(callback, Callback)}
        if own & seen:
            raise ValueError(
                "callbacks: expected objects of its own for each network, got one twice"
            )
        seen |= own
    return lists


def _bar(networks: int) -> Any:
    """Return a progress bar of so many networks."""
    from tqdm import (
        tqdm,  # imported here as it would be half of the time that `import fastnn` takes
    )

    return tqdm(desc="networks", total=networks, leave=False, dynamic_ncols=True)


def _of_network(number: int, error: Exception) -> Exception:
    """Return the error with a note that says whose it is."""
    error.add_note(f"This was networks[{number}] of fit_many.")
    return error
