# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every code that the collection can return, read from the places where problems, blockers and findings are made.

A code is what a parameter ``code`` gets: that of a class of values (``Problem``, ``Blocker``), of a method that makes
one (``Subject.problem``), or of ``PassthroughError``. All of them are found by that name, so a new one needs no line
here. A code has to be seen where it is given: a word, or one of two words. What is computed otherwise is an error here,
because nobody could find it in the code either. A code that is handed on (``error.code``) was given elsewhere.

The guards have a class attribute ``code``. They are asked themselves, since their registry is all that counts.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Optional, Union

from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.guards.registry import GUARDS

FOLDERS = ("module_utils", "plugin_utils", "modules", "filter")
"""Where code is, below ``plugins``."""

PROBLEM = "problem"
"""Why a module failed, or what it found."""
BLOCKER = "blocker"
"""What stands against passthrough on a host."""
GUARD = "guard"
"""What protects a device."""

_CODE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_PARAMETER = "code"


class Unreadable(Exception):
    """The source makes a code in a way that cannot be followed; the message has file and line."""


@dataclass(frozen=True)
class Given:
    """A code, and where it is given: ``path`` is relative to ``plugins``.

    ``severities`` are those that stand beside it, none where its kind has no severity.
    """

    code: str
    kind: str
    path: str
    line: int
    severities: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Maker:
    """Something that is called with a code. ``position`` is None where it is given by name only."""

    position: Optional[int]
    severity: Optional[int] = None
    """Where the severity stands, if there is one."""


Definition = Union[ast.FunctionDef, ast.ClassDef]


@dataclass(frozen=True)
class Source:
    """One file."""

    path: str
    tree: ast.Module

    @cached_property
    def definitions(self) -> dict[str, list[Definition]]:
        """Its classes, functions and methods by name."""
        found: dict[str, list[Definition]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.setdefault(node.name, []).append(node)
        return found

    @cached_property
    def imports(self) -> dict[str, str]:
        """Names that come from another file of the collection, with that file."""
        found = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                folder = Path(self.path).parents[node.level - 1]
                target = folder.joinpath(*(node.module or "").split(".")).with_suffix(".py")
                found.update({alias.asname or alias.name: str(target) for alias in node.names})
        return found


@dataclass
class Plugins:
    """All files below a folder ``plugins``."""

    root: Path
    sources: dict[str, Source] = field(init=False)
    makers: dict[str, set[Maker]] = field(init=False)
    """What takes a code, anywhere, by name."""

    def __post_init__(self) -> None:
        paths = sorted(path for folder in FOLDERS for path in (self.root / folder).rglob("*.py"))
        self.sources = {
            str(path.relative_to(self.root)): Source(
                str(path.relative_to(self.root)), ast.parse(path.read_text(encoding="utf-8"), str(path))
            )
            for path in paths
        }
        self.makers = {}
        for source in self.sources.values():
            for name, definitions in source.definitions.items():
                self.makers.setdefault(name, set()).update(_makers(definitions))

    def given(self) -> list[Given]:
        """Every code, once for each place where it is given.

        :raises Unreadable: when one of them cannot be seen in the source
        """
        found: list[Given] = []
        for source in self.sources.values():
            for scope, node in _nodes(source.tree):
                if isinstance(node, ast.Call):
                    found += self._in_call(source, node, scope)
                elif isinstance(node, (ast.FunctionDef, ast.Lambda)):
                    found += _in_defaults(source, node)
                elif isinstance(node, ast.Dict):
                    found += _in_mapping(source, node)
        return found

    def _in_call(self, source: Source, call: ast.Call, scope: tuple[ast.AST, ...]) -> Iterator[Given]:
        maker = self._maker(source, call)
        if maker is None:
            return
        name = _called(call)
        value = _argument(call, maker.position, _PARAMETER)
        if value is None:
            return  # its default, which is found where it is defined
        kind = BLOCKER if name == "Blocker" else PROBLEM
        severity = _argument(call, maker.severity, "severity") if kind == BLOCKER else None
        severities = frozenset(_words(source, severity, scope, "severity")) if severity is not None else frozenset()
        for code in _words(source, value, scope, _PARAMETER):
            yield Given(code, kind, source.path, call.lineno, severities)

    def _maker(self, source: Source, call: ast.Call) -> Maker | None:
        """What is called, when it takes a code."""
        name = _called(call)
        if name is None or name == "__init__":  # of a base class: what is called is the class that is defined here
            return None
        if name in source.definitions:
            makers = _makers(source.definitions[name])
        elif isinstance(call.func, ast.Name):
            target = self.sources.get(source.imports.get(name, ""))
            makers = set() if target is None else _makers(target.definitions.get(name, []))
        else:
            makers = self.makers.get(name, set())
        if len(makers) > 1:
            raise Unreadable(
                f"{source.path}:{call.lineno}: {name} has its code in different places; rename one of them"
            )
        return next(iter(makers), None)


def _nodes(tree: ast.AST, scope: tuple[ast.AST, ...] = ()) -> Iterator[tuple[tuple[ast.AST, ...], ast.AST]]:
    """Every node with the functions around it."""
    for node in ast.iter_child_nodes(tree):
        yield scope, node
        yield from _nodes(node, (*scope, node) if isinstance(node, (ast.FunctionDef, ast.Lambda)) else scope)


def _called(call: ast.Call) -> str | None:
    if isinstance(call.func, ast.Name):
        return call.func.id
    return call.func.attr if isinstance(call.func, ast.Attribute) else None


def _argument(call: ast.Call, position: int | None, name: str) -> ast.expr | None:
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    return call.args[position] if position is not None and position < len(call.args) else None


def _makers(definitions: Iterable[Definition]) -> set[Maker]:
    return {maker for definition in definitions for maker in _as_maker(definition)}


def _as_maker(definition: Definition) -> Iterator[Maker]:
    if isinstance(definition, ast.ClassDef):
        init = next(
            (one for one in definition.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None
        )
        if init is not None:
            yield from _as_maker(init)
            return
        names = [
            one.target.id
            for one in definition.body
            if isinstance(one, ast.AnnAssign)
            and isinstance(one.target, ast.Name)
            and "ClassVar" not in ast.unparse(one.annotation)
        ]
        is_value = any("dataclass" in ast.unparse(one) for one in definition.decorator_list)
        if is_value and _PARAMETER in names:
            yield Maker(names.index(_PARAMETER), names.index("severity") if "severity" in names else None)
        return
    names = [one.arg for one in definition.args.args]
    if names[:1] in (["self"], ["cls"]):
        names = names[1:]
    if _PARAMETER in names:
        yield Maker(names.index(_PARAMETER))
    elif _PARAMETER in [one.arg for one in definition.args.kwonlyargs]:
        yield Maker(None)


def _in_defaults(source: Source, function: ast.FunctionDef | ast.Lambda) -> Iterator[Given]:
    arguments = function.args
    pairs = [
        *zip(reversed(arguments.args), reversed(arguments.defaults)),
        *zip(arguments.kwonlyargs, arguments.kw_defaults),
    ]
    for parameter, default in pairs:
        if parameter.arg == _PARAMETER and default is not None:
            for code in _words(source, default, (), _PARAMETER):
                yield Given(code, PROBLEM, source.path, default.lineno)


def _in_mapping(source: Source, mapping: ast.Dict) -> Iterator[Given]:
    """A result that is made by hand."""
    for key, value in zip(mapping.keys, mapping.values):
        if isinstance(key, ast.Constant) and key.value == _PARAMETER and isinstance(value, ast.Constant):
            for code in _words(source, value, (), _PARAMETER):
                yield Given(code, PROBLEM, source.path, value.lineno)


def _words(source: Source, value: ast.expr, scope: tuple[ast.AST, ...], name: str) -> list[str]:
    """The words that an expression can be; none where a code is handed on that was given elsewhere."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str) and _CODE.fullmatch(value.value):
        return [value.value]
    if isinstance(value, ast.IfExp):
        return [*_words(source, value.body, scope, name), *_words(source, value.orelse, scope, name)]
    if _reads(value, name) or (isinstance(value, ast.Attribute) and value.attr == name):
        return []
    if isinstance(value, ast.Name):
        constant = _constant(source, value.id)
        if constant is not None:
            return _words(source, constant, scope, name)
        if value.id == name and any(_hands_on(function, name) for function in scope):
            return []
    raise Unreadable(
        f"{source.path}:{value.lineno}: {name} is {ast.unparse(value)!r}, which cannot be followed; write the word "
        "where the problem is made"
    )


def _constant(source: Source, name: str) -> ast.expr | None:
    """What a constant of the file stands for."""
    for node in source.tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(one, ast.Name) and one.id == name for one in node.targets):
            return node.value
    return None


def _hands_on(function: ast.AST, name: str) -> bool:
    """Whether a function takes the word as a parameter, or reads it from the result of a module (``item.get``)."""
    if not isinstance(function, (ast.FunctionDef, ast.Lambda)):
        return False
    if name in [one.arg for one in (*function.args.args, *function.args.kwonlyargs)]:
        return True
    return _reads(function, name)


def _reads(tree: ast.AST, name: str) -> bool:
    """Whether the word is read from the result of a module somewhere in there."""
    return any(isinstance(node, ast.Call) and ast.unparse(node).endswith(f".get('{name}')") for node in ast.walk(tree))


def guards() -> list[Given]:
    """The codes of the guards. Whether they can be forced, or only warn, is told by :func:`force_of`."""
    return [
        Given(guard.code, GUARD, f"{type(guard).__module__.split('.plugins.', 1)[1].replace('.', '/')}.py", 0)
        for guard in GUARDS
    ]


def force_of(code: str) -> str:
    """Whether a guard can be overridden: ``yes``, ``no``, or ``warning`` where it refuses nothing."""
    guard = next(guard for guard in GUARDS if guard.code == code)
    return "warning" if not guard.refuses else "yes" if guard.forcible else "no"


@lru_cache
def all_codes(root: Path) -> tuple[Given, ...]:
    """Every code of the collection in this folder, that of each guard included; read once."""
    return (*Plugins(root / "plugins").given(), *guards())


def severities(codes: Iterable[Given]) -> Mapping[str, str]:
    """The severity of each blocker; ``error, warning`` where it depends."""
    found: dict[str, set[str]] = {}
    for one in codes:
        if one.kind == BLOCKER:
            found.setdefault(one.code, set()).update(one.severities)
    return {code: ", ".join(sorted(words)) for code, words in found.items()}
