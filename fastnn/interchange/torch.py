"""Networks as modules of PyTorch, and from them."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from fastnn import extras
from fastnn.dropout import Dropout
from fastnn.interchange import state_dict
from fastnn.interchange.records import Described, described, row, said, said_by
from fastnn.layers import Dense, Elementwise, Layer, ParametricLayer
from fastnn.normalization import BatchNorm

try:
    import torch
    from torch import nn
    from torch.nn.utils import parametrize
except ImportError:
    raise ImportError(f"PyTorch is needed: {extras.install('torch')}") from None

if TYPE_CHECKING:
    from fastnn.network import Network

Made = TypeVar("Made", bound=Layer)

TARGET = "a PyTorch module"

DTYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}


class Rescaling(nn.Module):
    """Multiply by a constant, for which `torch.nn` has no module."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return scale * input."""
        return input * self.scale

    def extra_repr(self) -> str:
        """Return what stands between the brackets of the module's repr."""
        return repr(self.scale)


class Written(NamedTuple):
    """A module as `fastnn.layers.Elsewhere` writes it."""

    kind: type[nn.Module]
    constants: dict[str, str]
    """Names of the layer's constants, by PyTorch's."""
    options: dict[str, Any]
    """Other options, which must have these values."""


def written(text: str) -> Written:
    """Read what the class of a layer says of PyTorch."""
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call)
    name = ast.unparse(call.func)
    constants, options = {}, {}
    for keyword in call.keywords:
        if isinstance(keyword.value, ast.Name):
            constants[str(keyword.arg)] = keyword.value.id
        else:
            options[str(keyword.arg)] = ast.literal_eval(keyword.value)
    kind = Rescaling if name == Rescaling.__name__ else getattr(nn, name)
    return Written(kind, constants, options)


# To PyTorch


def module(network: Network) -> nn.Sequential:
    """Return `network` as a module; see `Network.to_torch`."""
    dtype = getattr(torch, network.dtype.name)
    modules = [
        row(_MODULES, part.record.kind, part.layer, TARGET)(part, dtype)
        for part in described(network, TARGET)
    ]
    return nn.Sequential(*modules).eval()


def _filled(built: nn.Module, part: Described) -> nn.Module:
    arrays = state_dict.of_layer(part.layer, part.record.kind)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    built.load_state_dict(built.state_dict() | tensors)
    return built


def _linear(part: Described, dtype: torch.dtype) -> nn.Module:
    record: Any = part.record
    # as initial weights would be drawn from PyTorch's generator, which is the user's
    make: Any = nn.utils.skip_init
    return _filled(make(nn.Linear, record.input_units, record.output_units, dtype=dtype), part)


def _batch_norm_1d(part: Described, dtype: torch.dtype) -> nn.Module:
    record: Any = part.record
    momentum = _other_momentum(record.momentum)
    return _filled(nn.BatchNorm1d(record.units, record.epsilon, momentum, dtype=dtype), part)


def _other_momentum(momentum: float) -> float:
    """Turn the share that stays of running statistics into the share that enters, and back.

    Rounded to what an error of one rounding leaves, so that 1 - 0.9 is 0.1.
    """
    return round(1 - momentum, 15)


def _function(part: Described, _: torch.dtype) -> nn.Module:
    layer: Any = part.layer
    kind, constants, options = written(said("torch", layer, TARGET))
    return kind(**{theirs: getattr(layer, ours) for theirs, ours in constants.items()}, **options)


_MODULES: dict[str, Callable[[Described, torch.dtype], nn.Module]] = {
    "dense": _linear,
    "batch_norm": _batch_norm_1d,
    "elementwise": _function,
    "dropout": lambda part, _: nn.Dropout(part.layer.p),  # type: ignore[attr-defined]
}
"""How the module of a layer is made, by the kind of record with which it describes itself."""


# From PyTorch


def layers(module: nn.Sequential) -> tuple[list[Layer], np.dtype[Any]]:
    """Return the layers of a module, and the dtype of its parameters; see `fastnn.from_torch`."""
    if not isinstance(module, nn.Sequential):
        raise TypeError(
            f"module: expected a torch.nn.Sequential, got {type(module).__name__}; "
            "load_state_dict of a network takes the parameters of any module"
        )
    found = _checked(module)
    parameters = list(module.named_parameters(remove_duplicate=False))
    if len({id(parameter) for _, parameter in parameters}) < len(parameters):
        raise ValueError("module: expected parameters of its own for each layer, got shared ones")
    dtypes = {parameter.dtype for _, parameter in parameters} or {torch.float32}
    if len(dtypes) > 1 or not dtypes <= DTYPES.keys():
        raise TypeError(
            "module: expected parameters in float32 or in float64, "
            f"got {', '.join(sorted(map(str, dtypes)))}; module.float() makes all of them float32"
        )
    if any(parameter.is_meta for _, parameter in parameters):
        raise ValueError("module: expected parameters with values, got those of the device meta")
    layers: list[Layer] = []
    width = None
    for where, part in found:
        layer = _LAYERS[type(part)](where, part)
        if layer is None:
            continue
        if width is not None and layer.input_units not in (None, width):
            raise ValueError(
                f"{where}: expected {width} inputs, the width of the layer before, got {part}"
            )
        width = layer.output_units or width
        layers.append(layer)
    return layers, DTYPES[dtypes.pop()]


def _checked(module: nn.Sequential) -> list[tuple[str, nn.Module]]:
    """Return the modules that become layers, and where they are, if each computes what it is for.

    Raises
    ------
    TypeError
        If one is of a class without a layer, or computes something else by its own `forward` or by
        a hook.
    """
    found = []
    for name, part in module.named_modules(remove_duplicate=False):
        where = f"module, {name}" if name else "module"
        hooks = part._forward_pre_hooks.values()
        computing = {base.__name__ for hook in hooks for base in type(hook).mro()}
        for kind in computing & _REMEDIES.keys():
            raise TypeError(
                f"{where}: expected parameters of its own, got those that {kind} computes; "
                f"call torch.nn.utils.{_REMEDIES[kind]} first"
            )
        known: Any = nn.Sequential if isinstance(part, nn.Sequential) else type(part)
        if known is not nn.Sequential and known not in _LAYERS:
            raise TypeError(
                f"{where}: expected one of {', '.join(kind.__name__ for kind in _LAYERS)}, "
                f"got {part}{_hint(part)}"
            )
        changed = (
            type(part).forward is not known.forward or type(part).__call__ is not known.__call__
        )
        if changed or "forward" in vars(part):
            raise TypeError(
                f"{where}: expected the forward of {known.__name__}, got {type(part).__name__} "
                "with one of its own; load_state_dict of a network takes the parameters of any "
                "module"
            )
        if part._forward_hooks or part._forward_pre_hooks:
            raise TypeError(
                f"{where}: expected {known.__name__} without forward hooks, which would be lost; "
                "remove them first, by remove() of what register_forward_hook returned"
            )
        if known is not nn.Sequential:
            found.append((where, part))
    return found


def _hint(part: nn.Module) -> str:
    if isinstance(part, nn.modules.lazy.LazyModuleMixin):
        return "; give the module a batch first, which makes its parameters"
    if parametrize.is_parametrized(part):
        return "; torch.nn.utils.parametrize.remove_parametrizations makes it a plain one"
    return _HINTS.get(type(part), "")


def _read(layer: ParametricLayer, where: str, part: nn.Module) -> Layer:
    """Give `layer` the arrays of a module."""
    record: Any = layer._describe(0)
    values = state_dict.arrays(layer, record.kind, part.state_dict(), where)
    layer._parameters.fill(values)
    return layer


def _made(kind: type[Made], where: str, *arguments: Any, **options: Any) -> Made:
    """Make a layer; an error says of which module it is."""
    try:
        return kind(*arguments, **options)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}, {error}") from None


def _expect(where: str, part: Any, **options: object) -> None:
    """Raise unless a module has these options."""
    for name, value in options.items():
        if getattr(part, name) != value:
            raise ValueError(
                f"{where}: expected {type(part).__name__} with {name}={value!r}, "
                f"got {name}={getattr(part, name)!r}"
            )


def _dense(where: str, part: Any) -> Layer:
    return _read(_made(Dense, where, part.in_features, part.out_features), where, part)


def _batch_norm(where: str, part: Any) -> Layer:
    _expect(where, part, affine=True, track_running_stats=True)
    if part.momentum is None:
        raise ValueError(f"{where}: expected BatchNorm1d with a number for momentum, got None")
    momentum = _other_momentum(part.momentum)
    layer = _made(BatchNorm, where, part.num_features, momentum=momentum, epsilon=part.eps)
    return _read(layer, where, part)


def _elementwise(made: type[Elementwise], text: str) -> Callable[[str, Any], Layer]:
    """Return what makes a layer of the module of which its class says `text`."""
    _, constants, options = written(text)

    def make(where: str, part: Any) -> Layer:
        if isinstance(part, nn.Softplus):
            if part.threshold < 20:
                raise ValueError(
                    f"{where}: expected Softplus with a threshold of at least 20, "
                    f"got {part.threshold}"
                )
            _expect(where, part, beta=options["beta"])
        else:
            _expect(where, part, **options)
        values = {ours: getattr(part, theirs) for theirs, ours in constants.items()}
        return _made(made, where, **values)

    return make


def _flatten(where: str, part: Any) -> None:
    _expect(where, part, start_dim=1, end_dim=-1)


_LAYERS: dict[type[nn.Module], Callable[[str, Any], Layer | None]] = {
    nn.Linear: _dense,
    nn.BatchNorm1d: _batch_norm,
    nn.Dropout: lambda where, part: _made(Dropout, where, part.p),
    nn.Flatten: _flatten,
    nn.Identity: lambda where, part: None,
    **{written(text).kind: _elementwise(made, text) for made, text in said_by("torch").items()},
}
"""How the layer of a module is made; None where it does nothing to rows of numbers."""

_REMEDIES = {
    "WeightNorm": "remove_weight_norm",
    "SpectralNorm": "remove_spectral_norm",
    "BasePruningMethod": "prune.remove",
}
"""What makes a plain parameter of one that a hook computes of others, by the hook's class.

By its name, as PyTorch means to do without some of these classes.
"""

_HINTS: dict[type[nn.Module], str] = dict.fromkeys(
    (nn.Softmax, nn.LogSoftmax), "; leave it out: the loss has the softmax in it"
)
