"""What a comparison consists of: one case for every contender."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

LABELS = {
    "numba": "fastnn numba",
    "numpy": "fastnn numpy",
    "torch": "PyTorch eager",
    "torch.compile": "torch.compile",
    "jax": "JAX lax.scan",
    "sklearn": "scikit-learn",
}
#: The peers by the name of the module that they need, and the contenders that each brings.
PEERS = {"torch": ("torch", "torch.compile"), "jax": ("jax",), "sklearn": ("sklearn",)}

MATMUL_SIZE = 1024

VARIANTS = ("momentum", "adam", "dropout", "batch norm")
"""What else is trained than plain SGD on dense layers with ReLU."""
MOMENTUM = 0.9
BETA1, BETA2, ADAM_EPSILON = 0.9, 0.999, 1e-8
"""Of Adam, as every library here has them unless told."""
DROPPED = 0.2
"""Share of the hidden units that dropout drops."""

IMAGES = ("float", "uint8")
"""Inputs that are the images of a data set."""
INPUTS = (*IMAGES, "table", "random")
DATA_LABELS = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}

#: What contenders have no form of, by the field of a case that asks for it.
LACKS: dict[str, dict[str, tuple[str, ...]]] = {
    "sklearn": {
        "variant": ("dropout", "batch norm"),
        "matmul_precision": ("bfloat16",),
        "task": ("dense",),
        "input": ("uint8",),
    }
}


@dataclass(frozen=True)
class Case:
    """One contender on one piece of work; everything that its worker process has to know.

    Parameters
    ----------
    contender : str
        A key of `LABELS`; "peak" for the matrix product that measures the machine.
    task : {"train", "fit", "predict", "row", "dense", "matmul", "step", "recipe"}
        What a round is: an epoch over the samples, a whole training of `epochs` epochs, one
        prediction of them all, a prediction of each by itself, the forward pass of one dense layer
        on the same batch again and again, the product, steps that are taken to pieces, or a
        training by a recipe, with another seed in each round.
    shape : tuple of int
        Units of every layer, the input first.
    samples : int
        Samples in a round; in training it is cut to whole batches.
    epochs : int
        Times that "fit" goes over them.
    input : {"float", "uint8", "table", "random"}
        Images scaled to `dtype`, their raw pixels scaled by the contender, standardised columns
        without a zero, as those of a table, or dense random numbers.
    data : str
        The images: a name or a directory, as `fastnn.load_dataset` takes them.
    order : {"C", "F"}
        Whether samples lie by rows or by columns.
    avx2 : bool
        Whether every library is told to leave wider vectors than AVX2's alone.
    variant : {"plain", "momentum", "adam", "dropout", "batch norm"}
        What is trained: dense layers with ReLU between them by plain SGD, or that with another
        optimiser, dropout after each ReLU, or batch norm before it.
    matmul_precision : {None, "bfloat16"}
        What operands of matrix products are rounded to, if to anything.
    recipe : str
        A key of `RECIPES`, which says all else of such a training.
    """

    contender: str
    task: str = "train"
    shape: tuple[int, ...] = (784, 100, 200, 10)
    batch_size: int = 32
    samples: int = 50_000
    epochs: int = 1
    dtype: str = "float32"
    input: str = "float"
    data: str = "mnist"
    order: str = "C"
    threads: int = 1
    avx2: bool = False
    variant: str = "plain"
    matmul_precision: str | None = None
    recipe: str = ""

    def __post_init__(self) -> None:
        numbers = (*self.shape, self.batch_size, self.samples, self.epochs, self.threads)
        if len(self.shape) < 2 or min(numbers) < 1:
            raise ValueError(f"expected at least two layer sizes and positive numbers, got {self}")
        if self.of_images and self.data == "mnist" and (self.shape[0], self.shape[-1]) != (784, 10):
            raise ValueError(
                f"MNIST needs a shape from 784 to 10 units, got {self.shape}; "
                "other shapes take --input random"
            )
        if self.trains:
            if self.batch_size > self.samples:
                raise ValueError(
                    f"--batch-size: expected at most {self.samples}, the samples of a round, "
                    f"got {self.batch_size}"
                )
            whole_batches = self.samples // self.batch_size * self.batch_size
            object.__setattr__(self, "samples", whole_batches)

    @property
    def is_peer(self) -> bool:
        """Whether the contender is another package."""
        return any(self.contender in contenders for contenders in PEERS.values())

    @property
    def is_known(self) -> bool:
        """Whether the contender has a form of this work."""
        lacks = LACKS.get(self.contender, {})
        return not any(getattr(self, field) in values for field, values in lacks.items())

    @property
    def of_images(self) -> bool:
        """Whether inputs are the images of `data`."""
        return self.input in IMAGES

    @property
    def trains(self) -> bool:
        """Whether a round moves parameters."""
        return self.task in ("train", "fit", "step")

    @property
    def learning_rate(self) -> float:
        """0.1, or what moves parameters as far, in proportion to the batch below 32 samples."""
        rate = {"momentum": 0.1 * (1 - MOMENTUM), "adam": 0.001}.get(self.variant, 0.1)
        return rate * min(1.0, self.batch_size / 32)

    @property
    def steps(self) -> int:
        """Steps in a round, or calls."""
        batches = self.epochs * (self.samples // self.batch_size)
        return {"predict": 1, "matmul": 1, "row": self.samples}.get(self.task, batches)

    @property
    def flops(self) -> int:
        """Floating-point operations of a round, counted densely.

        A product of ``[batch, in]`` and ``[in, out]`` takes ``2 batch in out``. Training has three
        of that size a layer (output, parameter gradient, input gradient), but for the first layer,
        whose input gradient nobody needs. Biases, activations and loss are left out.
        """
        if self.task == "matmul":
            return 2 * MATMUL_SIZE**3
        rows = self.samples * self.epochs
        products = [2 * rows * inputs * outputs for inputs, outputs in pairwise(self.shape)]
        return 3 * sum(products) - products[0] if self.trains else sum(products)

    @property
    def team(self) -> str:
        """The threads in words."""
        return f"{self.threads} thread{'s' if self.threads > 1 else ''}"

    @property
    def products(self) -> str:
        """What is multiplied, in words."""
        return f"products in {self.matmul_precision or self.dtype}"

    @property
    def form(self) -> str:
        """The inputs in words."""
        images = DATA_LABELS.get(self.data, Path(self.data).name)
        return {
            "float": images,
            "uint8": f"{images} uint8",
            "table": f"{self.shape[0]} dense columns",
            "random": "random input",
        }[self.input]


@dataclass(frozen=True)
class Comparison:
    """Cases that run side by side. The first is the subject, the one the others are compared to."""

    cases: tuple[Case, ...]

    @property
    def name(self) -> str:
        """The subject's work in words."""
        case = self.cases[0]
        if case.task == "recipe":
            return f"{case.recipe} of MNIST's test set, {case.team}"
        tasks = {"fit": f"fit of {case.epochs} epochs", "row": "predict one row"}
        return ", ".join(
            [
                tasks.get(case.task, case.task),
                "-".join(map(str, case.shape)),
                *([f"batch {case.batch_size}"] if case.trains or case.task == "dense" else []),
                case.dtype,
                *([case.products] if case.matmul_precision is not None else []),
                case.form,
                *([f"{case.samples:,} samples"] if self._differ("order") else []),
                case.team,
                *(["AVX2"] if case.avx2 else []),
                *([case.variant] if case.variant != "plain" else []),
            ]
        )

    def label(self, case: Case) -> str:
        """The contender's name, and what sets this case apart where several share a comparison."""
        label = LABELS[case.contender]
        if self._differ("input"):
            label += f", {'uint8' if case.input == 'uint8' else case.dtype} input"
        if self._differ("threads"):
            label += f", {case.team}"
        if self._differ("matmul_precision"):
            label += f", {case.products}"
        if case.order == "F":
            label += ", by columns"
        return label

    def _differ(self, field: str) -> bool:
        return len({getattr(case, field) for case in self.cases}) > 1


def against(contenders: Iterable[str], **work: Any) -> Comparison:
    """Compare the Numba backend with the NumPy backend and `contenders` on one piece of work.

    From raw pixels a peer enters in both of its forms, scaling each batch by itself and fed with
    floats, since either may be the faster. A peer that has no form of the work is left out.
    """
    subject = Case("numba", **work)
    cases = [subject, replace(subject, contender="numpy")]
    for contender in contenders:
        case = replace(subject, contender=contender)
        cases.append(case)
        if case.input == "uint8":
            cases.append(replace(case, input="float"))
    return Comparison(tuple(case for case in cases if case.is_known))
