"""Arguments are answered before the imports of a command, which take seconds: ``--help``, and what argparse refuses.

``python -m eval.x`` imports this package first. Here the statements of the command up to ``parse_args`` are taken from
its source and run by themselves. A name they use is looked up where it is written down, in any module of ours, and
evaluated alone: constants, functions, classes and what the standard library has. Anything else (torch, say) is
:class:`_Absent`: it may be stored, called and asked for attributes, since the keys of a table are enough for its
``choices``. Whoever looks at it closer ends the attempt, and so does any other surprise: the command then starts as
ever, and argparse answers there. Right arguments are parsed twice, which takes milliseconds.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import sys
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

_HOME = Path(__file__).resolve().parents[2]
_PACKAGE = Path(__file__).resolve().parents[1].name  # eval, or holitom_eval where it is installed
_OURS = ("eval", "holitom", "llava")
_PARSER = ("holitom.cli", "Parser")


class _Unknown(Exception):
    """What cannot be known without the imports."""


class _Absent:
    """A value of a library that is not imported."""

    def __getattr__(self, name: str) -> _Absent:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: object, **__: object) -> _Absent:
        return self

    def __or__(self, other: object) -> _Absent:
        return self

    def _refuse(self, *_: object) -> NoReturn:
        raise _Unknown

    __bool__ = __iter__ = __len__ = __getitem__ = __contains__ = __eq__ = __str__ = __repr__ = __index__ = _refuse
    __float__ = __fspath__ = __hash__ = __format__ = _refuse  # type: ignore[assignment]


class _Parser(argparse.ArgumentParser):
    """As :class:`holitom.cli.Parser` answers."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, **options})

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"error: {' '.join(f'{message}; see --help'.split())}\n")
        sys.exit(2)


class _Names(dict[str, Any]):
    """The names of one module, each evaluated when it is first used."""

    def __init__(self, module: str) -> None:
        path = source_of(module)
        if path is None:
            raise _Unknown(module)
        self.module, self.path = module, path
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.defined = dict(_definitions(self.tree))
        # dataclasses look for the module of a class among those imported
        super().__init__(__name__=__name__, __doc__=ast.get_docstring(self.tree, clean=False), __file__=str(path))

    def __missing__(self, name: str) -> Any:
        if (self.module, name) == _PARSER:
            return _Parser
        if name not in self.defined:
            raise KeyError(name)  # a builtin, or an error
        node = self.defined[name]
        if isinstance(node, ast.Import | ast.ImportFrom):
            self[name] = _imported(node, name)
        else:
            self._run(node)
        return self[name]

    def _run(self, node: ast.stmt) -> None:
        if isinstance(node, ast.ClassDef):  # whose body does not ask __missing__
            for used in ast.walk(node):
                if isinstance(used, ast.Name) and used.id in self.defined and used.id not in {*self, node.name}:
                    self.__missing__(used.id)
        elif isinstance(node, ast.FunctionDef):
            node.decorator_list = []
        flags = annotations.compiler_flag  # a name in an annotation is none that is needed
        exec(compile(ast.Module([node], []), str(self.path), "exec", flags), self)


def _definitions(tree: ast.Module) -> Any:
    """Every name of a module with the statement that makes it."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name.partition(".")[0], node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, node) for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (
                (part.id, node) for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)
            )


def source_of(module: str) -> Path | None:
    """The file of a module or program of ours, or None."""
    first, *rest = module.split(".")
    base = Path(_HOME, _PACKAGE if first == "eval" else first, *rest)
    found = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in found if path.is_file()), None)


@cache
def _names(module: str) -> _Names:
    return _Names(module)


def _imported(node: ast.Import | ast.ImportFrom, name: str) -> Any:
    """What an import gives: of the standard library itself, of ours what is written there, of others a stand-in."""
    [alias] = [alias for alias in node.names if name in (alias.asname, alias.name, alias.name.partition(".")[0])]
    whole = alias.name if isinstance(node, ast.Import) else str(node.module)
    root = whole.partition(".")[0]
    if root in sys.stdlib_module_names:
        module = importlib.import_module(whole)
        if isinstance(node, ast.ImportFrom):
            return getattr(module, alias.name)
        return module if alias.asname else sys.modules[root]
    if root not in _OURS or isinstance(node, ast.Import) or source_of(f"{whole}.{alias.name}") is not None:
        return _Absent()
    return _names(whole)[alias.name]


def _calls(tree: ast.AST, name: str) -> list[ast.Call]:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == name]


def _reader(tree: ast.Module) -> ast.FunctionDef:
    """The function that reads the command line: ``main``, or the first that it calls to do so."""
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    main = functions["main"]
    called = [node.func.id for node in ast.walk(main) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return next(one for one in (main, *(functions[n] for n in called if n in functions)) if _calls(one, "parse_args"))


def answer(module: str) -> None:
    """Parse ``sys.argv`` as a command of ours does; returns where there is nothing to say, or nothing is known.

    Args:
        module: as ``python -m`` was told, ``eval`` being this folder's name here.

    Raises:
        SystemExit: with the help (0) or the complaint (2) written.
    """
    try:
        names = _names(f"{module}.__main__" if (source_of(f"{module}.__main__")) else module)
        function = _reader(names.tree)
        body: list[ast.stmt] = []
        for statement in function.body:
            call = _calls(statement, "parse_args")
            if call:
                body.append(ast.copy_location(ast.Expr(call[0]), statement))
                break
            body.append(statement)
        for argument in function.args.args:  # the command line's, given to a test only
            names[argument.arg] = None
        function.args, function.body = ast.arguments([], [], None, [], [], None, []), body
        names._run(function)
        before, sys.argv[0] = sys.argv[0], f"python -m {module}"
        try:
            names[function.name]()
        finally:
            sys.argv[0] = before
    except Exception:  # whatever it is, the command itself will see it
        return


def asked() -> str:
    """The command of ours that ``python -m`` is about to import."""
    name = sys.orig_argv[sys.orig_argv.index("-m") + 1]
    return name.replace(_PACKAGE, "eval", 1)
