"""The floors of the house, held by reading the source: imports, sizes, docstrings, annotations."""

import ast
import builtins
from collections.abc import Iterator
from pathlib import Path

import pytest

from griffin_lm import errors

PACKAGE = Path(__file__).parents[1] / "src" / "griffin_lm"
FILES = sorted(PACKAGE.rglob("*.py"))
LARGEST_FILE = 400  # lines

# A folder may use everything below it, nothing above or beside (docs/architecture.md).
FLOORS = [
    "_native",  # the compiled library; src/native
    "errors",
    "shapes precision allocator pictures",
    "ops",
    "layers",
    "mixers",
    "models",
    "checkpoints text",
    "inference",
    "evals",
    "training",
    "bench studies server",
    "cli",
]
HEIGHT = {name: floor for floor, names in enumerate(FLOORS) for name in names.split()}
FRONT_DOOR = 99  # __init__.py and __main__.py stand above all floors

# Python's own errors that say something to Python rather than to a user.
PROTOCOL_ERRORS = {"AttributeError", "NotImplementedError", "StopIteration"}
# Raised where a library's hook wants it, and turned into one of ours in the same file.
TURNED_INTO_OURS = {"checkpoints/files.py": {"ValueError"}}
# Ways to leave a command.
EXITS = {"SystemExit", "KeyboardInterrupt", "Exit", "typer.Exit", "typer.BadParameter"}

each_file = pytest.mark.parametrize(
    "path", FILES, ids=[path.relative_to(PACKAGE).as_posix() for path in FILES]
)


def home_of(path: Path) -> str:
    """The folder or top-level file that a source file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_homes(path: Path) -> Iterator[tuple[int, str]]:
    """(line, folder) of every import from this package, also those inside functions."""
    package = ["griffin_lm", *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[list[str]] = []
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            names = [[*base, alias.name] for alias in node.names]
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            names = [str(node.args[0].value).split(".")]
        for name in names:
            if name[0] == "griffin_lm" and len(name) > 1:
                yield node.lineno, name[1]


def overload(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it only adds a signature to a function that follows."""
    return any(ast.unparse(mark) in ("overload", "typing.overload") for mark in node.decorator_list)


def public_definitions(tree: ast.Module) -> Iterator[ast.AST]:
    """Classes, functions and methods whose names a reader may use."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    pending: list[ast.AST] = [tree]
    while pending:
        owner = pending.pop()
        for node in ast.iter_child_nodes(owner):
            if isinstance(node, kinds) and not node.name.startswith("_") and not overload(node):
                yield node
                if isinstance(node, ast.ClassDef):
                    pending.append(node)


@each_file
def test_imports_run_downwards(path: Path) -> None:
    home = home_of(path)
    for line, target in imported_homes(path):
        if target.startswith("__"):  # griffin_lm.__version__
            continue
        assert target in HEIGHT or home not in HEIGHT, f"{path.name}:{line}: {target} has no floor"
        lower = HEIGHT.get(target, 0) < HEIGHT.get(home, FRONT_DOOR)
        assert target == home or lower, f"{path.name}:{line}: {home} may not import {target}"


def test_the_guard_sees_an_import_inside_a_function(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    (tmp_path / "ops").mkdir()
    sneaky = tmp_path / "ops" / "sneaky.py"
    sneaky.write_text(
        "def f():\n    from ..models.config import ModelConfig\n    from .. import cli"
    )
    assert list(imported_homes(sneaky)) == [(2, "models"), (3, "cli")]


def test_every_folder_has_a_floor() -> None:
    homes = {home_of(path) for path in FILES} - {"__init__", "__main__"}
    assert homes <= set(HEIGHT), f"add to FLOORS: {sorted(homes - set(HEIGHT))}"


@each_file
def test_a_file_can_be_read_in_one_go(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LARGEST_FILE


@each_file
def test_everything_public_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text())
    bare = [node.name for node in public_definitions(tree) if not ast.get_docstring(node)]
    assert ast.get_docstring(tree) or not tree.body, "the file does not say what it is"
    assert not bare, f"no docstring: {', '.join(bare)}"


@each_file
def test_every_function_is_annotated(path: Path) -> None:
    loose: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        given = node.args
        every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        named = [arg for arg in every if arg is not None and arg.arg not in ("self", "cls")]
        if node.returns is None or any(arg.annotation is None for arg in named):
            loose.append(f"{node.name} (line {node.lineno})")
    assert not loose, f"not fully annotated: {', '.join(loose)}"


@each_file
def test_annotations_stay_visible_to_the_shape_checker(path: Path) -> None:
    assert "from __future__ import annotations" not in path.read_text()


@each_file
def test_every_error_raised_on_purpose_is_ours(path: Path) -> None:
    ours = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    turned = TURNED_INTO_OURS.get(path.relative_to(PACKAGE).as_posix(), set())
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
            continue
        name = ast.unparse(node.exc.func)
        allowed = ours | PROTOCOL_ERRORS | turned | (EXITS if home_of(path) == "cli" else set())
        foreign = hasattr(builtins, name) or name.startswith("typer.")
        assert name in allowed or not foreign, f"line {node.lineno}: raises {name}"


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn = [
        line.split("── ")[-1].split()[0]
        for line in (errors.__doc__ or "").splitlines()[2:]
        if "── " in line
    ]
    real = [name for name, kind in vars(errors).items() if isinstance(kind, type)]
    assert sorted(drawn) == sorted(set(real) - {"GriffinError"})
    assert all(issubclass(getattr(errors, name), errors.GriffinError) for name in real)
