"""Network: a list of layers, trained by minibatch gradient descent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastnn import (
    backends,
    checkpoints,
    checks,
    fitting,
    habits,
    hints,
    losses,
    optimizers,
    paths,
    propagation,
    samples,
    saving,
    training,
)
from fastnn.blocks import BlockSource
from fastnn.callbacks import Callback
from fastnn.checks import Array
from fastnn.interrupts import Held, heeded_later, uncut
from fastnn.layers import Gradients, Layer, TrainingMode
from fastnn.optimizers import Optimizer
from fastnn.progress import Progress
from fastnn.scores import Evaluation, RSquared
from fastnn.sequential import Sequential

if TYPE_CHECKING:
    import sklearn.neural_network
    import torch

INFERENCE_BATCH = 4096
"""Rows that evaluation and prediction take at once, so that a data set is never cast whole."""

INFERENCE_WORK, INFERENCE_GROUP = 5e9, 64
"""Parameters times rows at once, at the most: those of a tenth of a second or two, as Ctrl-C is
heard in between. They are whole groups, so that it changes no bit of the compiled prediction."""


_NOTHING = nullcontext()


class _InTraining:
    """A block in which a network trains, as `history` records; wherever Ctrl-C comes, it ends.

    No generator would do: a signal may raise before its first line, and between two of its own.
    """

    def __init__(self, network: Network, history: training.History) -> None:
        self._network, self._history = network, history
        self._began = False

    @heeded_later
    def __enter__(self) -> None:
        try:
            self._network._lock.alone(self._begin)
        except BaseException:
            self.__exit__()
            raise

    def _begin(self) -> None:
        network = self._network
        network._refuse_in_training("begin to train")
        network._history = self._history
        self._began = network._fitting = True

    @heeded_later
    def __exit__(self, *_: object) -> None:
        if not self._began:
            return
        with uncut:
            self._network._fitting = False
            # an interrupt may have come between what a `with` changes and what it puts back
            for layer in self._network._layers:
                layer.training = False
            self._history.trim()


class Network(Sequential):
    """A multi-layer perceptron with a loss on the last layer's output.

    Parameters
    ----------
    layers
        The layers in order; more can be added.
    loss : {"softmax_cross_entropy", "binary_cross_entropy", "mse"} or a loss
        What training minimises, by name, or as in `SoftmaxCrossEntropy(label_smoothing=0.1)`; `use`
        sets another, or one of your own. Names that other libraries have for these, such as
        "sparse_categorical_crossentropy" and "squared_error", are taken.
    optimizer
        Where given it serves all layers, also those added later, and replaces
        what they had. One optimiser can serve many layers, as its state
        belongs to their parameters. `network[0].learning_rate = 0.01` afterwards gives a layer a
        rate of its own, and `network[0].optimizer = SGD(0.1)` an optimiser. "sgd",
        "momentum", "nesterov", "rmsprop", "adam" and "adamw" stand for those of that name, with the
        rates that they have by default.
    clip_norm
        Where given, above 0: gradients whose norm is larger are multiplied by what brings it down
        to this, before each step. The norm is √Σ g² over the gradients of all parameters of the
        network together, those of penalties included, as in PyTorch's `clip_grad_norm_` and Keras'
        `global_clipnorm`. It is the network's and no optimiser's, as each layer may have one of its
        own. Layers' own `backward` clips nothing.
    backend : {"numba", "numpy"}, optional
        The backend that computes; by default the one in force here.
    dtype
        float32 or float64: of the parameters and of all that is computed.
    matmul_precision : {"bfloat16"}, optional
        Where given, in float32: the operands of every matrix product of `Dense` layers, forward and
        backward, are rounded to bfloat16 before they are multiplied. Parameters, sums, gradients,
        losses and optimisers stay in float32. With dense input a Zen 5, whose instruction for it
        (AVX512_BF16) is fast, trains 1.4 to 1.9 times as fast; an Emerald Rapids, whose is not, is
        slower by it than in float32. All processors come to the same numbers.
        Where most of the input is zero, as of MNIST, float32 is faster, as it skips zeros.
    seed
        Of the network's one random generator, which draws initial parameters
        and the order of samples. The same seed gives the same bits.

    Attributes
    ----------
    metadata : dict of str to str
        Notes of yours, such as the names of classes, which files hold as well.

    Raises
    ------
    ValueError
        If there is no such backend, loss, optimiser or precision, float64 is to be multiplied in
        bfloat16, widths of neighbouring layers differ, or a layer belongs to another network.
    TypeError
        If `dtype` is another, something in `layers` is not a `Layer`, or
        `optimizer` no `Optimizer`.

    Warns
    -----
    UserWarning
        If there is an `optimizer`, and a layer that it serves was given a learning rate or an
        optimiser.

    Notes
    -----
    Threads may share a network. Those that predict do it side by side; who trains it, or changes
    it by a method of the network, is alone meanwhile. `fit` stands back between two stretches of
    about a tenth of a second, so what others predict or save then is of parameters between two
    steps. While one thread fits it, another can't. Layers are not guarded when they are used by
    themselves, nor is a network that is pickled. Different networks do not get in each other's way.
    """

    @habits.explained
    def __init__(
        self,
        layers: Iterable[Layer] = (),
        *,
        loss: str | losses.Loss = "softmax_cross_entropy",
        optimizer: Optimizer | str | None = None,
        clip_norm: float | None = None,
        backend: str | None = None,
        dtype: npt.DTypeLike = np.float32,
        matmul_precision: str | None = None,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self._loss = losses.chosen(loss)
        self._clip_norm = checks.clip_norm("clip_norm", clip_norm)
        self._history: training.History | None = None
        self.metadata: dict[str, str] = {}
        super().__init__(
            layers,
            optimizer=optimizer,
            backend=backend,
            dtype=dtype,
            matmul_precision=matmul_precision,
            seed=seed,
        )

    def __repr__(self) -> str:
        layers = "".join(f"\n    {layer!r}," for layer in self._layers)
        body = f"[{layers}\n]" if layers else "[]"
        loss = f"loss={self._loss!r}"
        if self._clip_norm is not None:
            loss += f", clip_norm={self._clip_norm!r}"
        options = f"{loss}, backend={self._backend_name!r}, dtype={self._dtype.name!r}"
        if self._matmul_precision is not None:
            options += f", matmul_precision={self._matmul_precision!r}"
        return f"Network({body}, {options})"

    def use(
        self,
        loss: str | losses.Loss | losses.LossFunction,
        loss_prime: losses.LossFunction | None = None,
    ) -> None:
        """Train by another loss from now on.

        Parameters
        ----------
        loss
            "softmax_cross_entropy", "binary_cross_entropy" or "mse"; or a loss, as
            `SoftmaxCrossEntropy(label_smoothing=0.1)`; or the function of fastnn of one of them
            (`softmax_crossentropy_with_logits`, `binary_crossentropy_with_logits`,
            `mse`), which means the same; or a function of your own, called as
            `loss(y_true, y_pred)` with the targets and outputs of a batch, that returns one number,
            the mean over the batch.
        loss_prime
            Beside a function of your own: called likewise, it returns the gradient of that number
            with respect to `y_pred`, in its shape. `y_pred` is read-only.

        Raises
        ------
        ValueError
            If there is no loss of that name, or the two functions do not belong together.
        TypeError
            If `loss` is no name, loss or function, or `loss_prime` is missing.
        RuntimeError
            While `fit` runs.

        Notes
        -----
        Targets `y` under each loss: class ids [n] under softmax cross-entropy; under binary
        cross-entropy 1 or 0 for each output, or probabilities from 0 to 1, [n, outputs], [n] with
        one output; under squared error class ids [n], which stand for one-hot rows, or real numbers
        [n, outputs], [n] with one output; under a loss of your own whatever has one row a sample,
        and rows of it are what the functions are handed.

        Binary cross-entropy is that of the sigmoid of each output, so the last layer is no
        `Sigmoid`. It is summed over outputs (where Keras and PyTorch take the mean), then averaged
        over samples as all losses are.
        """
        chosen = losses.chosen(loss, loss_prime)
        with self._lock.writing():
            self._refuse_in_training("take another loss")
            self._loss = chosen

    @property
    def loss(self) -> str:
        """The name of the loss."""
        return self._loss.name

    @property
    def clip_norm(self) -> float | None:
        """What the norm of all gradients together is clipped at; None where it is not."""
        return self._clip_norm

    @clip_norm.setter
    def clip_norm(self, value: float | None) -> None:
        clip_norm = checks.clip_norm("clip_norm", value)
        with self._lock.writing():
            self._refuse_in_training("change its clip_norm")
            self._clip_norm = clip_norm

    # Inference

    def forward(self, X: npt.ArrayLike) -> list[Array]:
        """Return the activations of every layer, in inference.

        Parameters
        ----------
        X : array of shape [batch, input_units]

        Returns
        -------
        list of arrays of shape [batch, units], one a layer; the last holds the logits

        Raises
        ------
        ValueError
            If `X` has another shape or no row, or the network has no layer.
        TypeError
            If `X` does not hold real numbers.
        """
        with self._lock.reading(), self._quiet():
            return propagation.activations(self, samples.inputs(self, X))

    def __call__(self, X: npt.ArrayLike) -> Array:
        """Return the last layer's output, such as logits, for each row of `X`, in inference.

        Raises
        ------
        ValueError, TypeError
            As `forward`.
        """
        with self._lock.reading(), self._quiet():
            return np.concatenate(list(self._outputs(X)))

    def predict(self, X: npt.ArrayLike) -> Array:
        """Return an answer for each row of `X` [n, input_units].

        Returns
        -------
        int64 array of shape [n] or [n, outputs], or array of shape [n, outputs]
            Under softmax cross-entropy the class id with the largest logit; under binary
            cross-entropy 1 for each output whose logit is above 0 and 0 elsewhere, [n] with one
            output; under another loss the outputs.

        Raises
        ------
        ValueError, TypeError
            As `forward`.

        Warns
        -----
        RuntimeWarning
            If answers are classes and outputs NaN, as of NaN in `X`; it names the first such row.
        """
        answers: list[Array] = []
        start, lost = 0, []
        with self._lock.reading(), self._quiet():
            for output in self._outputs(X):
                answer = self._loss.answers(output)
                if answer.dtype.kind == "i" and hints.has_nan(output):  # other answers are NaN
                    lost += hints.rows_with_nan(output, start)
                answers.append(answer)
                start += len(output)
        if lost:
            names = hints.names_of_columns(X)
            hints.warn_of_nan(self._dtype, samples.inputs(self, X), names, lost)
        return np.concatenate(answers)

    def predict_proba(self, X: npt.ArrayLike) -> Array:
        """Return probabilities [n, outputs] for each row of `X` [n, input_units].

        Under softmax cross-entropy those of the classes, which sum to 1; under binary cross-entropy
        the sigmoid of each output, the probability of 1.

        The last bits of a row may depend on the rows beside it: few rows, many, and rows full of
        zeros take different kernels.

        Raises
        ------
        ValueError, TypeError
            As `forward`.
        TypeError
            If the loss is another, so that outputs are no logits.
        """
        backend = backends.load(self._backend_name)
        with self._lock.reading(), self._quiet():
            return np.concatenate(
                [self._loss.probabilities(backend, output) for output in self._outputs(X)]
            )

    @habits.explained
    def evaluate(
        self, X: npt.ArrayLike, y: npt.ArrayLike, *, sample_weight: npt.ArrayLike | None = None
    ) -> Evaluation:
        """Return the mean loss, and accuracy or R², on `X` [n, input_units] with targets `y`.

        Accuracy is the share of samples whose answer is right, None where targets are no classes.
        Under binary cross-entropy a sample is right if the answers of all outputs are (the subset
        accuracy of scikit-learn); where targets are probabilities between 0 and 1 it is None. `use`
        says what targets may be, and `fit` what `sample_weight` is.

        R², with the samples' weights, is there where targets are real numbers, one for each output,
        under squared error, "poisson" and a loss of your own; None elsewhere.

        The layers' penalties are part of the loss, here and in training.

        Raises
        ------
        ValueError, TypeError
            As `forward`, and if `y` does not hold a target for each row, in range if a class id.

        Warns
        -----
        RuntimeWarning
            If outputs are NaN because of `X`; it names the first such row.
        """
        names = hints.names_of_columns(X)
        X, y = samples.checked(self, X, y)
        weights = samples.weights(self, sample_weight, len(y))
        backend = backends.load(self._backend_name)
        classes = samples.has_classes(self, X, y)
        r2 = RSquared() if samples.has_quantities(self, X, y) else None
        loss, correct, start, lost = 0.0, 0, 0, []
        with self._lock.reading(), self._quiet():
            for output in self._outputs(X):
                rows = slice(start, start + len(output))
                targets, shares = y[rows], None if weights is None else weights[rows]
                total = self._loss.total(backend, output, targets, shares)
                if math.isnan(total):
                    lost += hints.rows_with_nan(output, start)
                loss += total
                if classes:
                    correct += self._loss.right_answers(output, targets)
                if r2 is not None:
                    r2.add(targets, self._loss.answers(output), shares)
                start += len(output)
            loss = float(loss / (len(y) if weights is None else weights.sum()))
            loss += propagation.penalty(self._layers)
        if lost and not self._fitting:  # a training warns of its losses itself
            hints.warn_of_nan(self._dtype, X, names, lost, data_alone=True)
        accuracy = correct / len(y) if classes else None
        return Evaluation(loss, accuracy, None if r2 is None else r2.value)

    # Training

    def train_step(
        self, X: npt.ArrayLike, y: npt.ArrayLike, *, sample_weight: npt.ArrayLike | None = None
    ) -> float:
        """Take one gradient step on a batch; return its mean loss before the step.

        Parameters
        ----------
        X : array of shape [batch, input_units]
        y : targets, one a sample; see `use`
        sample_weight : numbers of shape [batch], optional
            See `fit`.

        Raises
        ------
        ValueError, TypeError
            As `evaluate`.
        """
        X, y = samples.checked(self, X, y)
        weights = samples.weights(self, sample_weight, len(y))

        def step() -> float:
            with self._quiet(), TrainingMode(self._layers, True):
                loss, _ = propagation.step(self, X, y, weights)
            return loss

        with Held():
            loss = self._lock.alone(step)
        return float(loss / (len(y) if weights is None else weights.sum()))

    def gradients(
        self, X: npt.ArrayLike, y: npt.ArrayLike, *, sample_weight: npt.ArrayLike | None = None
    ) -> tuple[float, list[Gradients]]:
        """Return the mean loss of a batch and the gradient of every parameter, without a step.

        It computes as training does, and leaves the network as it was: the masks of dropout are
        those of the next step, and running statistics stay.

        Parameters
        ----------
        X : array of shape [batch, input_units]
        y : targets, one a sample; see `use`
        sample_weight : numbers of shape [batch], optional
            See `fit`.

        Returns
        -------
        loss : float
        gradients : list of dict
            One a layer: the gradient of each parameter by its name, in its shape.

        Raises
        ------
        ValueError, TypeError
            As `evaluate`.
        """
        X, y = samples.checked(self, X, y)
        weights = samples.weights(self, sample_weight, len(y))
        with self._lock.writing(), self._quiet():
            loss, gradients = propagation.gradients(self, X, y, weights)
        return float(loss / (len(y) if weights is None else weights.sum())), gradients

    @habits.explained
    def fit(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        threads: int | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        sample_weight: npt.ArrayLike | None = None,
        class_weight: str | Mapping[int, float] | npt.ArrayLike | None = None,
        validation_data: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
        validation_split: float | None = None,
        train_accuracy: bool = False,
        on_divergence: str = "raise",
        progress: bool | Progress = False,
        callbacks: Iterable[Callback | Callable[[Network, training.History], object]] = (),
        checkpoint: str | PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        resume: str | PathLike[str] | None = None,
    ) -> training.History:
        """Train by minibatch gradient descent.

        Parameters
        ----------
        X : array of shape [n, input_units]
            Any real dtype; it is cast batch by batch, never whole. What lies by columns, as tables
            of pandas do, is copied once to lie by rows, unless it lies in a file.
        y : targets, one a sample; see `use`
        epochs
            Passes over the data.
        batch_size
            Samples in a step. The last batch of an epoch may be shorter.
        threads
            Threads that share each step of the compiled epoch; the bits of the
            result don't depend on it. By default, the environment variable
            FASTNN_NUM_THREADS, or else a number chosen by the work: one for small
            steps, two for others if the process may use two cores. A network can
            be shared by 1, 2 or 4 threads, depending on its size (`explain`
            tells); no more than that are used. The layer path takes no notice.
        shuffle
            Draw a new order for every epoch.
        drop_last
            Leave out a last batch that is shorter.
        sample_weight : numbers of shape [n], optional
            A weight of each sample, at least 0. The loss is the weighted mean, so a weight of 2
            is the sample twice; accuracy counts samples. A loss of your own takes none.
        class_weight : {"balanced"}, mapping or numbers of shape [classes], optional
            A weight of each class, which those of its samples are multiplied by; 1 for a class
            that a mapping does not name. "balanced" weighs classes by n / (classes that occur *
            samples of the class), so that each class has the same part in the loss. Under binary
            cross-entropy one output has the classes 0 and 1, and more than one can't be weighed so.
        validation_data
            (X, y) to evaluate after each epoch, without weights.
        validation_split
            In place of `validation_data`: the share of the samples that is kept out of training
            and evaluated after each epoch, above 0 and below 1. They are drawn from the network's
            generator, at random.
        train_accuracy
            Evaluate the training data after each epoch as well.
        on_divergence : {"raise", "warn", "ignore"}
            What becomes of a loss, or of parameters, that turn NaN or infinite. By default a
            `DivergenceError` says at which step, in which layer and at which learning rate, and the
            network has its last good parameters, those before the update that spoiled it. Training
            goes on under "warn", after one warning, and under "ignore". To go back takes a copy of
            parameters and optimisers' states, after a while two, and a hundredth of the time;
            neither of the others takes any. What layers and optimisers of your own remember is
            copied by `copy.deepcopy`.
        progress
            Show loss, accuracy and samples/s: in a terminal by a bar, and a line for each epoch
            that is over; in a log file or a pipe by the lines; in a notebook by a table. Bars and
            lines go to standard error. A `fastnn.progress.Progress` shows them elsewhere.
        callbacks
            Objects such as `EarlyStopping` and `Checkpoint` (see `fastnn.Callback`), or functions,
            which are called as `callback(network, history)` after each epoch; one that returns
            something true ends the training.
        checkpoint
            A file to write all that the training needs to go on; each write replaces it in one
            step. The first one is written before the first step, the last one when the last epoch
            is over.
        checkpoint_every
            Steps from one checkpoint to the next; by default one is written after each epoch.
        resume
            A checkpoint to go on from, bit for bit as if the training had never stopped. The
            network has the layers, loss, `clip_norm` and optimisers that it had when the training
            began, and arguments and data are those of then; but there may be more epochs. As a
            rule the same file is given to `checkpoint`, else no more are written.
            `fastnn.resume` makes the network as well.

        Returns
        -------
        History
            Of the whole training, where it goes on from a checkpoint.

        Raises
        ------
        ValueError, TypeError
            As `evaluate`, and if an option is out of range or of the wrong type.
        RuntimeError
            While a `fit` of the same network runs: from its callbacks, or in another thread.
        FileNotFoundError
            If there is no checkpoint to go on from; a `ValueError` if it is damaged, or if it is of
            another network, of other data or of other arguments.
        DivergenceError
            Where training diverges, as `on_divergence` says. Epochs that were over stay in
            `history`, callbacks' `on_train_end` is not called, and a checkpoint is that of before.
        OSError
            If a checkpoint can't be written; a `TypeError` if the network can't be saved, as it
            has a layer, a loss, an optimiser or a schedule that is not one of fastnn's own.

        Warns
        -----
        RuntimeWarning
            Once, unless `on_divergence` is "ignore", when a validation loss is NaN or infinite,
            or, under "warn", any loss: of NaN in the data, with its place.
        UserWarning
            Before the training: of inputs of a first `Dense` layer that often go beyond 10, such
            as raw pixels, of real targets that do so, and of class ids that no sample has, such as
            0 where labels count from 1.
        """
        options = fitting.checked_options(
            self,
            epochs=epochs,
            batch_size=batch_size,
            threads=threads,
            shuffle=shuffle,
            drop_last=drop_last,
            train_accuracy=train_accuracy,
            on_divergence=on_divergence,
            progress=progress,
            callbacks=callbacks,
        )
        return fitting.on_samples(
            self,
            X,
            y,
            options,
            sample_weight=sample_weight,
            class_weight=class_weight,
            validation_data=validation_data,
            validation_split=validation_split,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            resume=resume,
        ).run()

    @habits.explained
    def fit_blocks(
        self,
        blocks: BlockSource,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        threads: int | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        validation_data: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
        on_divergence: str = "raise",
        progress: bool | Progress = False,
        callbacks: Iterable[Callback | Callable[[Network, training.History], object]] = (),
    ) -> training.History:
        """Train on samples that come block by block, as those that don't fit into memory.

        One block is held at a time. What a block leaves over of its last batch begins the first
        batch of the next one, so the steps are those of `fit` on all samples, but for the order:
        unshuffled, they are the same to the bit where the samples hold no zeros.

        Parameters
        ----------
        blocks
            A function that returns an iterator over pairs (X, y), as a generator function does, and
            is called for each epoch; or a list of pairs, or another iterable that can be gone
            through once an epoch. `X` and `y` are as `fit` takes them, and a block has as many
            samples as you like; one without any is passed over. Where the first one holds uint8,
            all do. The arrays of a block may be written to again when the next one is asked for.
        epochs, batch_size, threads
            As `fit` takes them.
        shuffle
            Draw an order for the samples of each block. Blocks come as they come, so samples that
            are sorted by class are to be mixed beforehand.
        drop_last
            Leave out the last batch of an epoch where it is shorter.
        validation_data, on_divergence, progress, callbacks
            As `fit` takes them. What one block has made of the network can't be told in the next:
            where a block spoils the step after its last one, the network goes back to what it was
            at the beginning of that block, or of one before it.

        Returns
        -------
        History
            `seconds` are those of training steps, without the time that blocks take to come.

        Raises
        ------
        ValueError, TypeError
            As `fit`; if `blocks` can be gone through but once and there are more epochs, or an
            epoch has no sample, or a block is no pair, which may show in the midst of training.
        RuntimeError, DivergenceError
            As `fit`.

        Warns
        -----
        RuntimeWarning, UserWarning
            As `fit`; what the first block holds is looked at.

        Notes
        -----
        Which kernels are used depends on the share of zeros in the first block.
        """
        options = fitting.checked_options(
            self,
            epochs=epochs,
            batch_size=batch_size,
            threads=threads,
            shuffle=shuffle,
            drop_last=drop_last,
            on_divergence=on_divergence,
            progress=progress,
            callbacks=callbacks,
        )
        return fitting.on_blocks(self, blocks, options, validation_data).run()

    @property
    def history(self) -> training.History | None:
        """What `fit` returned last, or had recorded when Ctrl-C ended it; None before."""
        return self._history

    def explain(self) -> str:
        """Say which path `fit` takes through an epoch, and why; and how many threads can share it.

        The compiled epoch runs whole minibatches in one call; the layer path
        calls the layers one by one. Their results are equal up to rounding.
        """
        reason = paths.reason_for_layers(self)
        if reason is None:
            most = paths.most_threads(self)
            sharing = f"up to {most} threads share a step" if most > 1 else "on one thread"
            rounding = ""
            if self._matmul_precision is not None:
                rounding = f"; bfloat16 is multiplied {paths.how_bfloat16(self)}"
            return (
                "compiled epoch: all layers, the loss and all optimisers have compiled kernels; "
                f"{sharing}{rounding}"
            )
        return f"layer path: {reason}"

    # Files

    def save(self, path: str | PathLike[str]) -> None:
        """Write architecture and parameters to `path` in the safetensors format.

        `fastnn.load` reads it back. There is no pickle in it, so a file from
        elsewhere can't run code.

        Raises
        ------
        TypeError
            If a layer, the loss, an optimiser or a schedule is not one of fastnn's own: functions
            and classes can't be written. If `metadata` holds something other than texts.
        OSError
            If the file can't be written.

        Notes
        -----
        Of a network with a layer of your own, `numpy.savez(path, *network.get_weights())` keeps the
        parameters, and `set_weights(numpy.load(path).values())` puts them into a network that has
        been built anew.
        """
        with self._lock.reading():
            saving.save(self, path)

    # Other libraries

    def to_onnx(
        self,
        path: str | PathLike[str],
        *,
        probabilities: bool = False,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        """Write prediction to `path` in the ONNX format, which many runtimes and tools read.

        The graph takes `input` [batch, input_units], with any number of rows, and gives `output`
        [batch, output_units], which is what `network(input)` returns, such as logits, or the
        logarithms of rates under "poisson".

        Parameters
        ----------
        path
            Of the file, as a rule with the ending .onnx.
        probabilities
            Give `probabilities` [batch, output_units] as well, which is what `predict_proba`
            returns.
        dtype
            float32 or float64: of input, outputs and all between; by default the network's.

        Raises
        ------
        ValueError
            If the network has no layer.
        TypeError
            If a layer is not one of fastnn's own, or there is no ONNX operator for it; if `dtype`
            is another; or if there are to be probabilities and outputs are no logits.
        ImportError
            If onnx is not installed.
        OSError
            If the file can't be written.

        Notes
        -----
        The operators are those of version 17 of the standard. onnxruntime has no error function in
        float64, so there a network with GELU is written in float32.
        """
        from fastnn.interchange import onnx

        with self._lock.reading():
            onnx.write(self, path, probabilities=probabilities, dtype=dtype)

    def to_torch(self) -> torch.nn.Sequential:
        """Return a module of PyTorch that computes the same, with copies of the parameters.

        It is on the CPU, in the network's dtype, and set to predict, as by `eval()`.

        Raises
        ------
        ValueError
            If the network has no layer.
        TypeError
            If a layer is not one of fastnn's own, or PyTorch has no module for it.
        ImportError
            If PyTorch is not installed.

        Notes
        -----
        What is not in a module of PyTorch stays behind: loss, optimisers, and the penalty `l2` of
        dense layers, which is `weight_decay=2 * l2` there. `Rescaling` becomes a module of
        fastnn's.
        """
        from fastnn.interchange import torch

        with self._lock.reading():
            return torch.module(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy in the parameters of a module of PyTorch, whatever calls its layers.

        Parameters
        ----------
        state_dict
            What its `state_dict()` returns, or arrays by the same names: a file in the safetensors
            format can be read without PyTorch. It has parameters for each dense and batch norm
            layer of this network, in their order.

        Raises
        ------
        ValueError
            If there are not arrays of the right shapes for each; nothing has changed then.
        TypeError
            If `state_dict` is no mapping, or one does not hold real numbers.

        Notes
        -----
        What optimisers remember stays.
        """
        from fastnn.interchange import state_dict as reading

        with self._lock.writing():
            reading.load(self, state_dict)

    def to_sklearn(
        self, *, classes: npt.ArrayLike | None = None
    ) -> sklearn.neural_network.MLPClassifier | sklearn.neural_network.MLPRegressor:
        """Return a fitted perceptron of scikit-learn that predicts the same.

        Under softmax cross-entropy and binary cross-entropy it is an MLPClassifier (of several
        labels a sample under the latter, if there are several outputs), under squared error an
        MLPRegressor. They have the same activation behind every dense layer but the last, one
        that scikit-learn has, or none. Batch norm and Rescaling become part of a dense layer beside
        them, and Dropout is left out.

        Parameters
        ----------
        classes
            The labels that class ids stand for, in ascending order; by default the ids. There are
            none for an MLPRegressor, nor where a sample may have several labels.

        Raises
        ------
        TypeError
            If the layers are others, or the loss is.
        ValueError
            If there are to be other `classes`, or they are in another order, or the network has no
            layer.
        ImportError
            If scikit-learn is not installed.

        Notes
        -----
        Where training goes on by `partial_fit` it is as the estimator's parameters say, which are
        those by default.
        """
        from fastnn.interchange import sklearn

        with self._lock.reading():
            return sklearn.estimator(self, classes)

    # Below: what public methods share. Arguments have been checked.

    def _prepare(self) -> None:
        """Have the kernels compiled, or read from the cache, before anything is timed."""
        operations = {name for layer in self._layers for name in layer._operations}
        backend = backends.load(self._backend_name)
        backend.prepare(self._dtype, sorted(operations.union(self._loss.operations)))
        for layer in self._learned():
            optimizers.prepare(layer.optimizer, backend, self._dtype)
        with self._quiet():
            propagation.penalty(self._layers)

    def _go_on_from(self, saved: checkpoints.Saved) -> None:
        """Become the network of a checkpoint, which is of the same layers."""
        twin = Network._of_checkpoint(saved, saved.optimizer, saved.layers)
        for layer, other in zip(self._layers, twin, strict=True):
            layer.__dict__.update(other.__getstate__())
        self._optimizer = saved.optimizer
        # in place, as a callback may draw from the generator that the network was given
        self._rng.bit_generator.state = saved.rng.bit_generator.state
        self._programs = paths.Programs()
        self._pack()

    @classmethod
    def _of_checkpoint(
        cls, saved: checkpoints.Saved, optimizer: Optimizer | None, layers: list[Layer]
    ) -> Network:
        """Return a network of these layers that is otherwise as a checkpoint says."""
        of = saved.terms.network
        return cls._restored(
            layers,
            optimizer,
            loss=losses.built(of["loss"]),
            clip_norm=of["clip_norm"],
            backend=of["backend"],
            dtype=of["dtype"],
            matmul_precision=of["matmul_precision"],
            seed=saved.rng,
        )

    @classmethod
    def _restored(cls, layers: list[Layer], optimizer: Optimizer | None, **options: Any) -> Network:
        """Return a network of layers that have had its optimiser, or each its own, before."""
        network = cls(layers, **options)
        # Not by the constructor: a layer that had been given one of its own keeps it.
        network._optimizer = optimizer
        return network

    def _in_training(self, history: training.History) -> AbstractContextManager[None]:
        """Be a network that trains, as `history` records; within `Held`."""
        return _InTraining(self, history)

    def _quiet(self) -> AbstractContextManager[None]:
        """Have NumPy keep to itself what it has to say of overflow and the like.

        Results tell, as on the Numba backend, whatever `np.seterr` has been told.
        """
        return np.errstate(all="ignore") if self._backend_name == "numpy" else _NOTHING

    def _outputs(self, X: npt.ArrayLike) -> Iterator[Array]:
        """Yield the last layer's output, some rows of `X` at a time, in inference.

        To be called where `_quiet` holds.
        """
        X = samples.inputs(self, X)
        with self._programs.for_prediction(self, X) as compiled:
            output_of = compiled or partial(propagation.infer, self)
            groups = int(INFERENCE_WORK / INFERENCE_GROUP / max(self._parameters.vector.size, 1))
            rows = min(INFERENCE_BATCH, INFERENCE_GROUP * max(groups, 1))
            for start in range(0, len(X), rows):
                yield output_of(X[start : start + rows])
