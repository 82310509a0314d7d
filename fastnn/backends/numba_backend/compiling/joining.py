"""Parts of compiled functions, written into the functions that call them before Numba sees these.

Numba can do so by itself (`inline="always"`), on its own representation and once more for each
part of a part. That took longer than to compile what came of it. Here the text of a part, by the
module `ast`, takes the place of its call: names of its variables get a number, its arguments
become variables, and its `return`, which is its last statement, the value of the call.

What stands in a condition stays there: `a and part(b)` computes the part where a holds. Elsewhere
a part that is more than an expression must be all that its statement computes, so that nothing
changes its place but arithmetic.
"""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import linecache
from collections.abc import Callable, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

from ..microkernel import maximum, minimum

OF_PYTHON = {"min": minimum, "max": maximum}
"""What stands for functions of Python's; Numba would compile them once more for each function."""

Expressions = dict[str, ast.expr]
Statements = list[ast.stmt]


class Part:
    """A function that is written into the compiled functions that call it.

    It has no machine code of its own.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function: Any = function
        self.__doc__ = function.__doc__

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        raise TypeError(f"{self.function.__name__} is called by compiled functions alone")


def joined(function: Callable[..., Any], given: Mapping[str, None]) -> FunctionType:
    """Return `function` with its parts written into it, and without the parameters `given`.

    These are None wherever they stand, and what is done for others is left out. Raises OSError
    where there are no source files.
    """
    tree = _tree_of(function)
    own = {argument.arg for argument in tree.args.args} | _stored(tree)
    names: Expressions = {name: ast.Name(name, ast.Load()) for name in own}
    names |= {name: ast.Constant(None) for name in given}
    joiner = _Joiner(own)
    body = joiner.block(tree.body, _Scope(function, names), returns=True)
    tree.args.args = [argument for argument in tree.args.args if argument.arg not in given]
    tree.body, tree.decorator_list = body or [ast.Pass()], []
    module = ast.Module([tree], [])
    # one line for each statement, as Numba tells where it was when something failed
    text = ast.unparse(ast.fix_missing_locations(module))
    namespace = dict(joiner.globals)
    exec(compile(text, f"<{function.__qualname__}, joined>", "exec"), namespace)
    result: FunctionType = namespace[tree.name]
    result.__module__, result.__qualname__ = function.__module__, function.__qualname__
    return result


def _tree_of(function: Any) -> ast.FunctionDef:
    """Return the tree of a function's text; a copy, which may be changed."""
    tree = _functions_in(function.__code__.co_filename).get(_without_places(function.__code__))
    if tree is None:
        raise OSError(f"{function.__qualname__} has no text of its own, or has it no more")
    return copy.deepcopy(tree)


@functools.cache
def _functions_in(file: str) -> dict[CodeType, ast.FunctionDef]:
    """Return the functions of a file by their code.

    Only one that is the same belongs to the text: the file may have been changed since a function
    was imported from it.
    """
    tree = ast.parse("".join(linecache.getlines(file)))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    by_line = {(_first_line(node), node.name): node for node in functions}
    found = {}
    codes = [compile(tree, file, "exec", dont_inherit=True)]
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        if node := by_line.get((code.co_firstlineno, code.co_name)):
            found[_without_places(code)] = node
    return found


def _without_places(code: CodeType) -> CodeType:
    """Return code that does not know where in its file each instruction comes from."""
    return code.replace(co_linetable=b"")


def _first_line(node: ast.FunctionDef) -> int:
    """Return the line that the code of a function names: that of its first decorator, if any."""
    return node.decorator_list[0].lineno if node.decorator_list else node.lineno


def _stored(tree: ast.AST) -> set[str]:
    """Return the names of the variables of a text."""
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}


class _Scope:
    """What names mean in a text: variables that have others, and globals of its function."""

    def __init__(self, function: Any, names: Expressions) -> None:
        self.names = names
        self.globals = function.__globals__
        if function.__closure__:
            cells = zip(function.__code__.co_freevars, function.__closure__, strict=True)
            self.globals = self.globals | {name: cell.cell_contents for name, cell in cells}

    def meaning(self, node: ast.expr) -> Any:
        """Return the object that a global name stands for, or a name of a module; else None."""
        if isinstance(node, ast.Name) and node.id not in self.names:
            return self.globals.get(node.id, OF_PYTHON.get(node.id))
        if isinstance(node, ast.Attribute):
            module = self.meaning(node.value)
            if isinstance(module, ModuleType) and module.__name__ != "numpy":
                return getattr(module, node.attr)
        return None


class _Joiner:
    """Writes one function, whose own variables are given; its `globals` are what it refers to."""

    def __init__(self, own: set[str]) -> None:
        self.globals: dict[str, Any] = {}
        self._own = own
        self._count = 0

    def block(self, body: Statements, scope: _Scope, returns: bool = False) -> Statements:
        """Return the statements of a body; those of a part have no `return` among them."""
        out: Statements = []
        for statement in body:
            self._statement(statement, scope, out, returns)
        return out

    def _statement(self, node: ast.stmt, scope: _Scope, out: Statements, returns: bool) -> None:
        if isinstance(node, ast.Expr):
            if isinstance(node.value, ast.Constant):
                return  # a docstring
            value = self._expression(node.value, scope, out, alone=True)
            if isinstance(value, ast.Call):
                out.append(ast.Expr(value))
            return
        if isinstance(node, ast.Return):
            if not returns:
                raise TypeError("a part has one return, its last statement")
            value = node.value and self._expression(node.value, scope, out, alone=True)
            out.append(ast.Return(value))
            return
        if isinstance(node, ast.If):
            test = self._expression(node.test, scope, out, alone=True)
            if isinstance(test, ast.Constant):
                out += self.block(node.body if test.value else node.orelse, scope, returns)
                return
            body, other = (self.block(part, scope, returns) for part in (node.body, node.orelse))
            out.append(ast.If(test, body or [ast.Pass()], other))
            return
        if isinstance(node, ast.For):
            node.iter = self._expression(node.iter, scope, out, alone=True)
            node.target = self._target(node.target, scope)
            node.body = self.block(node.body, scope, returns) or [ast.Pass()]
        elif isinstance(node, ast.While):
            before: Statements = []
            node.test = self._expression(node.test, scope, before)
            if before:
                raise TypeError("the condition of a while is an expression, also with its parts")
            node.body = self.block(node.body, scope, returns) or [ast.Pass()]
        elif isinstance(node, ast.Assign):
            node.value = self._expression(node.value, scope, out, alone=True)
            node.targets = [self._target(target, scope) for target in node.targets]
        elif isinstance(node, ast.AugAssign):
            node.value = self._expression(node.value, scope, out, alone=True)
            node.target = self._target(node.target, scope)
        elif not isinstance(node, (ast.Pass, ast.Break, ast.Continue)):
            raise TypeError(f"{type(node).__name__} is no statement of a compiled function")
        out.append(node)

    def _target(self, node: Any, scope: _Scope) -> Any:
        """Return what is assigned to."""
        if isinstance(node, ast.Name):
            return ast.Name(self._variable(node.id, scope), ast.Store())
        if isinstance(node, ast.Tuple):
            return ast.Tuple([self._target(item, scope) for item in node.elts], ast.Store())
        return self._expression(node, scope, [])

    @staticmethod
    def _variable(name: str, scope: _Scope) -> str:
        replaced = scope.names.get(name)
        return replaced.id if isinstance(replaced, ast.Name) else name

    def _expression(self, node: Any, scope: _Scope, out: Statements, alone: bool = False) -> Any:
        """Return an expression; what must be computed before goes to `out`.

        `alone` says that it is all that its statement computes.
        """
        if isinstance(node, ast.Name) and node.id in scope.names:
            return copy.deepcopy(scope.names[node.id])
        if isinstance(node, (ast.Name, ast.Attribute)):
            value = scope.meaning(node)
            if value is not None:
                return self._global(node, value)
        if isinstance(node, ast.BoolOp):
            return self._conditions(node, scope, out, alone)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            node.operand = self._expression(node.operand, scope, out, alone)
            return node
        if isinstance(node, ast.Compare):
            return self._comparison(node, scope, out, alone)
        if isinstance(node, ast.Call):
            part = scope.meaning(node.func)
            if isinstance(part, Part):
                before: Statements = []
                text = ast.unparse(node)
                value = self._part(part, node, scope, before)
                if not alone and not all(map(_is_harmless, before)):
                    raise TypeError(f"{text} must be all that a statement computes")
                out += before
                return value
        for field, value in ast.iter_fields(node):
            if isinstance(value, ast.expr):
                setattr(node, field, self._expression(value, scope, out))
            elif isinstance(value, list):
                items = [self._expression(v, scope, out) for v in value if isinstance(v, ast.AST)]
                setattr(node, field, items)
        return node

    def _global(self, node: ast.Name | ast.Attribute, value: Any) -> ast.expr:
        """Return what stands for the object that a global name means."""
        if isinstance(value, int):
            return ast.Constant(value)
        if isinstance(value, float):  # one of NumPy's is written otherwise
            return ast.Constant(float(value))
        wanted = node.id if isinstance(node, ast.Name) else node.attr
        name, number = wanted, 0
        while name in self._own or self.globals.get(name, value) is not value:
            number += 1
            name = f"{wanted}_{number}"
        self.globals[name] = value
        return ast.Name(name, ast.Load())

    def _comparison(
        self, node: ast.Compare, scope: _Scope, out: Statements, alone: bool
    ) -> ast.expr:
        alone = alone and not any(map(_calls_something, node.comparators))
        node.left = self._expression(node.left, scope, out, alone)
        node.comparators = [self._expression(other, scope, out) for other in node.comparators]
        if isinstance(node.ops[0], (ast.Is, ast.IsNot)):
            # of parameters, which are None or never
            is_none = isinstance(node.left, ast.Constant) and node.left.value is None
            return ast.Constant(is_none == isinstance(node.ops[0], ast.Is))
        return node

    def _conditions(
        self, node: ast.BoolOp, scope: _Scope, out: Statements, alone: bool
    ) -> ast.expr:
        """`and`, `or`: what is known is left out; parts are computed where they are asked for."""
        ends = isinstance(node.op, ast.Or)  # the value that ends it
        known: list[ast.expr] = []
        for number, value in enumerate(node.values):
            before: Statements = []
            value = self._expression(value, scope, before, alone)
            if isinstance(value, ast.Constant) and isinstance(value.value, bool):
                if value.value == ends:
                    known.append(value)
                    break
                continue
            if number and not all(map(_is_harmless, before)):
                name = self._new("condition")
                so_far = known[0] if len(known) == 1 else ast.BoolOp(node.op, known)
                out.append(_assignment(name, so_far))
                test: ast.expr = ast.Name(name, ast.Load())
                test = ast.UnaryOp(ast.Not(), test) if ends else test
                out.append(ast.If(test, [*before, _assignment(name, value)], []))
                known = [ast.Name(name, ast.Load())]
                continue
            out += before
            known.append(value)
        if not known or (len(known) == 1 and isinstance(known[0], ast.Constant)):
            return ast.Constant(ends if known else not ends)
        if isinstance(known[-1], ast.Constant) and len(known) > 1 and not ends:
            return ast.Constant(False)  # what stands before has no effect
        return known[0] if len(known) == 1 else ast.BoolOp(node.op, known)

    def _part(self, part: Part, call: ast.Call, scope: _Scope, out: Statements) -> ast.expr:
        """Write a part in the place of a call; return the value of the call."""
        tree, function = _tree_of(part.function), part.function
        bound = inspect.signature(function).bind(
            *call.args, **{str(word.arg): word.value for word in call.keywords}
        )
        stored = _stored(tree)
        is_expression = len(tree.body) - (ast.get_docstring(tree) is not None) == 1
        loaded = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
        inner = _Scope(function, {})
        for name, argument in bound.arguments.items():
            value = self._expression(argument, scope, out)
            once = is_expression and loaded.count(name) == 1 and not _calls_something(value)
            if name in stored or not (once or isinstance(value, (ast.Name, ast.Constant))):
                variable = self._new(name)
                out.append(_assignment(variable, value))
                value = ast.Name(variable, ast.Load())
            inner.names[name] = value
        for name in sorted(stored - set(inner.names)):
            inner.names[name] = ast.Name(self._new(name), ast.Load())
        last = tree.body[-1]
        if not isinstance(last, ast.Return):
            out += self.block(tree.body, inner)
            return ast.Constant(None)
        out += self.block(tree.body[:-1], inner)
        returned: ast.expr = self._expression(last.value, inner, out, alone=True)
        return returned

    def _new(self, name: str) -> str:
        self._count += 1
        return f"{name}_{self._count}"


def _is_harmless(statement: ast.stmt) -> bool:
    """Say whether a statement only gives a name to a number, and calls nothing."""
    return isinstance(statement, ast.Assign) and not _calls_something(statement.value)


def _calls_something(expression: ast.expr) -> bool:
    return any(isinstance(node, (ast.Call, ast.Subscript)) for node in ast.walk(expression))


def _assignment(name: str, value: ast.expr) -> ast.stmt:
    return ast.Assign([ast.Name(name, ast.Store())], value)
