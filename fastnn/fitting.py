"""What `fit` is given, checked: from arguments to a training that can begin."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastnn import checkpoints, checks, divergence, hints, losses, paths, propagation, samples
from fastnn.blocks import Blocks, BlockSource
from fastnn.callbacks import Callback, checked_callbacks
from fastnn.checks import Array
from fastnn.progress import Progress, checked_progress
from fastnn.training import History, Options, Training

if TYPE_CHECKING:
    from fastnn.network import Network

_VALIDATION = ("validation_data[0]", "validation_data[1]")


def checked_options(
    network: Network,
    *,
    epochs: int,
    batch_size: int,
    threads: int | None,
    shuffle: bool,
    drop_last: bool,
    train_accuracy: bool = False,
    on_divergence: str,
    progress: bool | Progress,
    callbacks: Iterable[Callback | Callable[[Network, History], object]],
) -> Options:
    """Return how to train, unless an argument is none or `network` can't begin now."""
    network._refuse_in_training("begin to train")
    options = Options(
        epochs=checks.integer("epochs", epochs, minimum=1),
        batch_size=checks.integer("batch_size", batch_size, minimum=1),
        threads=paths.threads_asked(threads),
        shuffle=checks.flag("shuffle", shuffle),
        drop_last=checks.flag("drop_last", drop_last),
        train_accuracy=checks.flag("train_accuracy", train_accuracy),
        on_divergence=divergence.checked(on_divergence),
        progress=checked_progress(progress),
        callbacks=checked_callbacks(callbacks),
    )
    if network.clip_norm is not None:
        propagation.check_clipping(network._layers)
    return options


def on_samples(
    network: Network,
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    options: Options,
    *,
    sample_weight: npt.ArrayLike | None,
    class_weight: str | Mapping[int, float] | npt.ArrayLike | None,
    validation_data: tuple[npt.ArrayLike, npt.ArrayLike] | None,
    validation_split: float | None,
    checkpoint: str | PathLike[str] | None,
    checkpoint_every: int | None,
    resume: str | PathLike[str] | None,
) -> Training:
    """Return the training that `Network.fit` is asked for."""
    checkpoint_every = _checked_files(checkpoint, checkpoint_every, resume)
    saved = None if resume is None else checkpoints.read(resume)
    columns = hints.names_of_columns(X)
    X, y = samples.checked(network, X, y)
    weights = samples.weights(network, sample_weight, len(y))
    if class_weight is not None:
        weights = _with_class_weights(network, class_weight, X, y, weights)
    validation = _validation(network, validation_data)
    kept_out = _kept_out(len(y), validation_split, beside=validation)
    count = len(y) - kept_out
    if options.drop_last and count < options.batch_size:
        raise ValueError(
            f"batch_size: expected at most the {count} training samples, as drop_last is set, "
            f"got {options.batch_size}"
        )
    has_file = checkpoint is not None or saved is not None
    chosen, split = None, None
    if kept_out:
        drawing = network._rng if saved is None else saved.split_generator()
        if has_file:
            split = drawing.bit_generator.state
        drawn = drawing.permutation(len(y))
        chosen, others = np.sort(drawn[kept_out:]), np.sort(drawn[:kept_out])
        validation = X[others], y[others]
        if weights is not None and not weights[chosen].any():
            raise ValueError(
                "sample_weight: expected a weight above 0 among the training samples, got none; "
                "all that have one are kept out by validation_split"
            )
    if saved is None:
        _give_hints(network, X, y, columns, whole=True, batch_size=min(options.batch_size, count))
    in_use = {"X": X, "y": y} | dict(zip(_VALIDATION, validation or (), strict=False))
    silent = options.on_divergence == "ignore"
    training = Training(
        network,
        options,
        X,
        y,
        weights=weights,
        chosen=chosen,
        validation=validation,
        watch=hints.Watch(network.dtype, in_use, columns, silent=silent),
        history=History() if saved is None else saved.history,
        position=checkpoints.Position() if saved is None else saved.position,
        states=None if saved is None else [state for _, state in saved.callbacks],
        checkpoint="" if saved is None else saved.path,
    )
    if has_file:
        terms = _terms(training, validation_split, split)
        if saved is not None:
            saved.check(terms, options.epochs, count, options.callbacks)
            network._go_on_from(saved)
        if checkpoint is not None:
            training.writer = checkpoints.Writer(
                checkpoint,
                checkpoint_every,
                options.epochs,
                network,
                training.history,
                options.callbacks,
                terms,
            )
    return training


def on_blocks(
    network: Network,
    blocks: BlockSource,
    options: Options,
    validation_data: tuple[npt.ArrayLike, npt.ArrayLike] | None,
) -> Training:
    """Return the training that `Network.fit_blocks` is asked for."""
    validation = _validation(network, validation_data)
    stream = Blocks(
        blocks,
        partial(samples.checked, network),
        options.epochs,
        options.batch_size,
        shuffle=options.shuffle,
        drop_last=options.drop_last,
    )
    X, y = stream.first_rows(paths.TRAINING_DENSITY_ROWS)
    _give_hints(network, X, y, None, whole=False, batch_size=options.batch_size)
    silent = options.on_divergence == "ignore"
    return Training(
        network,
        options,
        X,
        y,
        blocks=stream,
        validation=validation,
        watch=hints.Watch(network.dtype, {}, None, silent=silent),
        history=History(),
        position=checkpoints.Position(),
    )


def _checked_files(checkpoint: object, checkpoint_every: int | None, resume: object) -> int | None:
    """Return the steps from one checkpoint to the next, where the paths are some."""
    for name, file in (("checkpoint", checkpoint), ("resume", resume)):
        if file is not None:
            checks.file_path(name, file)
    if checkpoint_every is None:
        return None
    checkpoint_every = checks.integer("checkpoint_every", checkpoint_every, minimum=1)
    if checkpoint is None:
        raise ValueError(
            f"checkpoint_every: expected None without checkpoint, got {checkpoint_every}"
        )
    return checkpoint_every


def _with_class_weights(
    network: Network, class_weight: object, X: Array, targets: Array, weights: Array | None
) -> Array:
    """Return the weights of samples times those of their classes."""
    network._loss.check_weights("class_weight")
    classes = network._loss.class_ids(targets, samples.output_units(network, X))
    if classes is None:
        raise ValueError("class_weight: expected None, as targets are not class ids, one a row")
    labels, number = classes
    of_samples = losses.class_weights(class_weight, labels, number)[labels]
    found = of_samples if weights is None else weights * of_samples
    return checks.weights("class_weight", found, len(targets))


def _validation(
    network: Network, validation_data: tuple[npt.ArrayLike, npt.ArrayLike] | None
) -> tuple[Array, Array] | None:
    if validation_data is None:
        return None
    if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
        raise TypeError("validation_data: expected a pair (X, y)")
    return samples.checked(network, *validation_data, names=_VALIDATION)


def _kept_out(count: int, validation_split: object, *, beside: object) -> int:
    """Return how many of so many samples are for validation alone."""
    if validation_split is None:
        return 0
    if beside is not None:
        raise ValueError("validation_split: expected None beside validation_data")
    share = checks.real("validation_split", validation_split, minimum=0.0, below=1.0)
    number = round(share * count)
    if not 0 < number < count:
        raise ValueError(
            "validation_split: expected a share that leaves samples on both sides, got "
            f"{share} of {count}"
        )
    return number


def _give_hints(
    network: Network, X: Array, y: Array, columns: hints.Names, *, whole: bool, batch_size: int
) -> None:
    """Warn of what training can hardly do something with; the samples may not be all."""
    hints.look_at_batches(network._layers, batch_size)
    hints.look_at_inputs(network._layers, X, columns)
    if network._loss not in losses.BUILT_IN:
        return
    if y.dtype.kind != "i":
        if not isinstance(network._loss, losses.Poisson):  # counts, which are not standardised
            hints.look_at_targets(y)
    elif whole:
        hints.look_at_classes(y, samples.output_units(network, X))


def _terms(
    training: Training, validation_split: float | None, split: Mapping[str, object] | None
) -> checkpoints.Terms:
    """Return what must be the same where this training goes on from a checkpoint."""
    options = training.options
    arguments = {
        "batch_size": options.batch_size,
        "shuffle": options.shuffle,
        "drop_last": options.drop_last,
        "validation_split": validation_split,
        "train_accuracy": options.train_accuracy,
    }
    data = {"X": training.X, "y": training.y, "sample_weight, class_weight": training.weights}
    data |= dict(zip(_VALIDATION, training.validation or (None, None), strict=True))
    return checkpoints.terms_of(training.network, arguments, data, split)
