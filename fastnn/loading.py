"""Networks from elsewhere: from files, and from models of other libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastnn import backends, checkpoints, checks, losses, saving
from fastnn.callbacks import Callback
from fastnn.network import Network
from fastnn.optimizers import Optimizer
from fastnn.progress import Progress
from fastnn.training import History

if TYPE_CHECKING:
    import sklearn.neural_network
    import torch


def load(path: str | PathLike[str], *, backend: str | None = None) -> Network:
    """Return the network that `Network.save` wrote to `path`.

    Its random generator and its optimisers go on where those of the saved
    network stood, so training on gives the bits that it would have given without the file.

    Parameters
    ----------
    path
        A file in the safetensors format.
    backend : {"numba", "numpy"}, optional
        The backend that computes; by default the one in force here.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a model that fastnn wrote, or is damaged.
    """
    if not Path(checks.file_path("path", path)).is_file():
        raise FileNotFoundError(f"{path}: expected a model file, found none")
    name = backends.get_backend() if backend is None else backends.check_name("backend", backend)
    try:
        header, tensors = saving.opened(path)
        own = {key: array for key, array in tensors.items() if not key.startswith(saving.ASIDE)}
        layers, optimizer, options = saving.built(header, own)
        network = Network._restored(layers, optimizer, backend=name, **options)
        network.metadata = saving.metadata(header)
        return network
    except MemoryError:  # a header can ask for no more than there is in the file
        raise
    except Exception as error:
        # Damage shows in many ways, none of which says which file it is.
        reason = saving.damage(error)
        raise ValueError(f"{path}: expected a model saved by fastnn, got {reason}") from error


def resume(
    path: str | PathLike[str],
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    epochs: int | None = None,
    threads: int | None = None,
    sample_weight: npt.ArrayLike | None = None,
    class_weight: str | Mapping[int, float] | npt.ArrayLike | None = None,
    validation_data: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    on_divergence: str = "raise",
    progress: bool | Progress = False,
    callbacks: Iterable[Callback | Callable[[Network, History], object]] = (),
) -> Network:
    """Go on with a training from a checkpoint of `Network.fit`, as if it had never stopped.

    The network, on the backend that it was on, and arguments of `fit` come from the file; data and
    callbacks don't, and are given again. Checkpoints go on to be written to the file.

    Parameters
    ----------
    path
        What `fit` was given as `checkpoint`.
    X, y, sample_weight, class_weight, validation_data
        What `fit` was given; other data are refused.
    epochs
        Where given, how many in all; by default as many as were asked for before. So a training
        that has come to its end can go on.
    threads, on_divergence, progress
        As `fit` takes them; they change no bit.
    callbacks
        Of the same classes in the same order. Those of fastnn go on with what they remember, and so
        does one of your own that says what that is (`Callback.state_dict`). A function, and one
        that does not, begins anew.

    Returns
    -------
    Network
        Trained; `history` is that of the whole training.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a checkpoint, or damaged, or of other data or callbacks.
    """
    saved = checkpoints.read(checks.file_path("path", path))
    network = Network._of_checkpoint(saved, *saving.made(saved.terms.network))
    network.metadata = saved.metadata
    network.fit(
        X,
        y,
        epochs=saved.epochs if epochs is None else epochs,
        threads=threads,
        sample_weight=sample_weight,
        class_weight=class_weight,
        validation_data=validation_data,
        on_divergence=on_divergence,
        progress=progress,
        callbacks=callbacks,
        checkpoint=path,
        checkpoint_every=saved.every,
        resume=path,
        **saved.terms.arguments,
    )
    return network


def from_torch(
    module: torch.nn.Sequential,
    *,
    loss: str | losses.Loss = "softmax_cross_entropy",
    optimizer: Optimizer | str | None = None,
    backend: str | None = None,
    dtype: npt.DTypeLike | None = None,
    seed: int | np.random.Generator | None = None,
) -> Network:
    """Return a network that computes what a module of PyTorch does, with copies of its parameters.

    Parameters
    ----------
    module
        Of Linear, BatchNorm1d and Dropout modules, and of activations that fastnn has as well, in
        as many `Sequential` in each other as you like. Identity and Flatten are left out, as a
        network takes rows of numbers. Linear without biases gets some that are 0, which training
        moves.
    loss, optimizer, backend, seed
        As `Network` takes them.
    dtype
        float32 or float64; by default that of the parameters.

    Raises
    ------
    TypeError
        If `module` is no Sequential, or holds another module or parameters of another dtype.
    ValueError
        If a module has an option that fastnn has not, such as GELU's `approximate`, or two share
        parameters.
    ImportError
        If PyTorch is not installed.

    Notes
    -----
    `Network.load_state_dict` takes the parameters of modules that are no Sequential.

    Running variances go on in another way: PyTorch's are of unbiased variances of batches, n /
    (n - 1) times those of fastnn.
    """
    from fastnn.interchange import torch

    layers, own = torch.layers(module)
    return Network(
        layers,
        loss=loss,
        optimizer=optimizer,
        backend=backend,
        dtype=own if dtype is None else dtype,
        seed=seed,
    )


def from_sklearn(
    estimator: sklearn.neural_network.MLPClassifier | sklearn.neural_network.MLPRegressor,
    *,
    optimizer: Optimizer | str | None = None,
    backend: str | None = None,
    dtype: npt.DTypeLike | None = None,
    seed: int | np.random.Generator | None = None,
) -> Network:
    """Return a network that predicts what a perceptron of scikit-learn does, with its parameters.

    Class ids stand for the labels in `estimator.classes_`, by their place. Of two classes, and of
    several labels a sample, the loss is binary cross-entropy, so two classes have one output.
    Training goes on as the arguments below say, not as those of the estimator.

    Parameters
    ----------
    estimator
        A fitted MLPClassifier, or a fitted MLPRegressor that has minimised the squared error.
    optimizer, backend, seed
        As `Network` takes them.
    dtype
        float32 or float64; by default that of the parameters, which is float64 where the estimator
        was given float64 or integers.

    Raises
    ------
    TypeError
        If `estimator` is another one, or its outputs are made by another function.
    ValueError
        If it is not fitted.
    ImportError
        If scikit-learn is not installed.
    """
    from fastnn.interchange import sklearn

    layers, loss, own = sklearn.read(estimator)
    return Network(
        layers,
        loss=loss,
        optimizer=optimizer,
        backend=backend,
        dtype=own if dtype is None else dtype,
        seed=seed,
    )
