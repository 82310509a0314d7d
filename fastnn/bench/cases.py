"""What a comparison consists of: one case for every contender."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
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
VARIANT_PEERS = ("torch",)
"""Contenders that know them."""
MOMENTUM = 0.9
DROPPED = 0.2
"""Share of the hidden units that dropout drops."""


@dataclass(frozen=True)
class Case:
    """One contender on one piece of work; everything that its worker process has to know.

    Parameters
    ----------
    contender : str
        A key of `LABELS`; "peak" for the matrix product that measures the machine.
    task : {"train", "predict", "dense", "matmul"}
        What a round is: an epoch over the samples, one prediction of them all, the forward pass of
        one dense layer on the same batch again and again, or the product.
    shape : tuple of int
        Units of every layer, the input first.
    samples : int
        Samples in a round; in training it is cut to whole batches.
    input : {"float", "uint8", "random"}
        MNIST scaled to `dtype`, its raw pixels scaled by the contender, or dense random numbers.
    avx2 : bool
        Whether every library is told to leave wider vectors than AVX2's alone.
    variant : {"plain", "momentum", "adam", "dropout", "batch norm"}
        What is trained: dense layers with ReLU between them by plain SGD, or that with another
        optimiser, dropout after each ReLU, or batch norm before it.
    """

    contender: str
    task: str = "train"
    shape: tuple[int, ...] = (784, 100, 200, 10)
    batch_size: int = 32
    samples: int = 50_000
    dtype: str = "float32"
    input: str = "float"
    threads: int = 1
    avx2: bool = False
    variant: str = "plain"

    def __post_init__(self) -> None:
        if len(self.shape) < 2 or min(*self.shape, self.batch_size, self.samples, self.threads) < 1:
            raise ValueError(f"expected at least two layer sizes and positive numbers, got {self}")
        if self.input != "random" and (self.shape[0], self.shape[-1]) != (784, 10):
            raise ValueError(
                f"MNIST needs a shape from 784 to 10 units, got {self.shape}; "
                "other shapes take --input random"
            )
        if self.task == "train":
            if self.batch_size > self.samples:
                raise ValueError(f"a batch of {self.batch_size} exceeds {self.samples} samples")
            whole_batches = self.samples // self.batch_size * self.batch_size
            object.__setattr__(self, "samples", whole_batches)

    @property
    def is_peer(self) -> bool:
        """Whether the contender is another package."""
        return any(self.contender in contenders for contenders in PEERS.values())

    @property
    def learning_rate(self) -> float:
        """0.1, or what moves parameters as far, in proportion to the batch below 32 samples."""
        rate = {"momentum": 0.1 * (1 - MOMENTUM), "adam": 0.001}.get(self.variant, 0.1)
        return rate * min(1.0, self.batch_size / 32)

    @property
    def steps(self) -> int:
        """Steps in a round; a prediction is one."""
        return self.samples // self.batch_size if self.task in ("train", "dense") else 1

    @property
    def flops(self) -> int:
        """Floating-point operations of a round, counted densely.

        A product of ``[batch, in]`` and ``[in, out]`` takes ``2 batch in out``. Training has three
        of that size a layer (output, parameter gradient, input gradient), but for the first layer,
        whose input gradient nobody needs. Biases, activations and loss are left out.
        """
        if self.task == "matmul":
            return 2 * MATMUL_SIZE**3
        products = [2 * self.samples * inputs * outputs for inputs, outputs in pairwise(self.shape)]
        return 3 * sum(products) - products[0] if self.task == "train" else sum(products)


@dataclass(frozen=True)
class Comparison:
    """Cases that run side by side. The first is the subject, the one the others are compared to."""

    cases: tuple[Case, ...]

    @property
    def name(self) -> str:
        """The subject's work in words."""
        case = self.cases[0]
        form = {"float": "MNIST", "uint8": "MNIST uint8", "random": "random input"}[case.input]
        return ", ".join(
            [
                case.task,
                "-".join(map(str, case.shape)),
                *([f"batch {case.batch_size}"] if case.task in ("train", "dense") else []),
                case.dtype,
                form,
                f"{case.threads} thread{'s' if case.threads > 1 else ''}",
                *(["AVX2"] if case.avx2 else []),
                *([case.variant] if case.variant != "plain" else []),
            ]
        )

    def label(self, case: Case) -> str:
        """The contender's name, and what sets this case apart where several share a comparison."""
        label = LABELS[case.contender]
        if len({other.input for other in self.cases}) > 1:
            label += f", {'uint8' if case.input == 'uint8' else case.dtype} input"
        if len({other.threads for other in self.cases}) > 1:
            label += f", {case.threads} thread{'s' if case.threads > 1 else ''}"
        return label


def against(contenders: Iterable[str], **work: Any) -> Comparison:
    """Compare the Numba backend with the NumPy backend and `contenders` on one piece of work.

    From raw pixels a peer enters in both of its forms, scaling each batch by itself and fed with
    floats, since either may be the faster. scikit-learn has no form for raw pixels.
    """
    subject = Case("numba", **work)
    cases = [subject, replace(subject, contender="numpy")]
    for contender in contenders:
        case = replace(subject, contender=contender)
        if case.input != "uint8" or contender != "sklearn":
            cases.append(case)
        if case.input == "uint8":
            cases.append(replace(case, input="float"))
    return Comparison(tuple(cases))
