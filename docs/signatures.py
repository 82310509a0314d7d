"""What the reference shows of a class or function: which members, and how types are spelled."""

from __future__ import annotations

import inspect
import re

from sphinx.pycode import ModuleAnalyzer

MODULES = r"\b(?:checks|losses|np|npt|os|random|schedules|training)\.(?=\w)"
"""What stands before a type's name in the source."""


def belongs_elsewhere(app, kind: str, name: str, member: object, skip: bool, options):
    """Leave out what classes have from scikit-learn or Python, of which others' references tell."""
    owner = getattr(member, "__objclass__", member)
    home = str(getattr(owner, "__module__", ""))
    return True if home.split(".")[0] in ("sklearn", "builtins", "collections") else None


def as_written(app, kind: str, name: str, member, options, arguments: str | None, result):
    """Spell types as the source does: evaluated, one alias may fill lines."""
    if arguments is None or kind not in ("class", "function", "method"):
        return None
    signature = inspect.signature(member)
    parameters = [spelled(parameter) for parameter in signature.parameters.values()]
    if kind == "method" and parameters and parameters[0].name in ("self", "cls"):
        del parameters[0]
    result = Verbatim(signature.return_annotation)
    text = str(signature.replace(parameters=parameters, return_annotation=result))
    arguments, _, result = re.sub(MODULES, "", text).rpartition(" -> ")
    return arguments, None if kind == "class" else result


def spelled(parameter: inspect.Parameter) -> inspect.Parameter:
    """Return a parameter whose annotation and default print as their source."""
    default, annotation = parameter.default, parameter.annotation
    if isinstance(default, type) and default is not parameter.empty:
        default = Verbatim(default.__name__)
    annotation = getattr(annotation, "__forward_arg__", annotation)  # of a NamedTuple
    if isinstance(annotation, str):
        annotation = Verbatim(annotation)
    return parameter.replace(default=default, annotation=annotation)


def without_overloads(analyze):
    """Have one signature for people; overloads are for type checkers."""

    def analyze_and_drop(self) -> None:
        analyze(self)
        self.overloads = {}

    return analyze_and_drop


class Verbatim:
    """A text that is its own `repr`."""

    def __init__(self, text: object) -> None:
        self.text = text

    def __repr__(self) -> str:
        return str(self.text)


def setup(app) -> dict[str, bool]:
    """Be an extension of Sphinx."""
    app.connect("autodoc-process-signature", as_written)
    ModuleAnalyzer.analyze = without_overloads(ModuleAnalyzer.analyze)
    app.connect("autodoc-skip-member", belongs_elsewhere)
    return {"parallel_read_safe": True}
