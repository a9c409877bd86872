"""A part without a test fails here: every module, every objective, every system."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import kontrast
from kontrast.contract import system_names
from kontrast.losses import objectives

SOURCE = Path(kontrast.__file__).parent
TESTS = Path(__file__).parent
WORDS = set(re.findall(r"\w+", "\n".join(file.read_text() for file in TESTS.rglob("*.py") if file != Path(__file__))))
MODULES = [file for file in sorted(SOURCE.rglob("*.py")) if file.name not in ("__init__.py", "__main__.py")]


def defined(file: Path) -> set[str]:
    """Names of a module's own classes and functions, and of the methods of its classes."""
    tree = ast.parse(file.read_text())
    tops = [node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    methods = [item for node in tops if isinstance(node, ast.ClassDef) for item in node.body]
    named = [*tops, *(item for item in methods if isinstance(item, ast.FunctionDef))]
    return {node.name for node in named if not node.name.startswith("__")}


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_every_module_is_named_in_a_test(file):
    names = {file.stem, *defined(file)}
    assert names & WORDS, f"no test names {file.relative_to(SOURCE)} or anything it defines"


def test_every_objective_is_named_in_a_test():
    missing = [name for name, objective in objectives().items() if objective.function.__name__ not in WORDS]
    assert not missing, f"no test names {missing}"


@pytest.mark.parametrize("name", system_names())
def test_every_system_has_a_room_of_tests_and_a_page(name):
    assert list((TESTS / "systems").glob(f"test_{name}*.py")), f"tests/systems has no test_{name}*.py"
    page = TESTS.parent / "docs" / "systems" / f"{name}.md"
    assert page.is_file(), f"docs/systems has no {name}.md"
    assert name in (TESTS.parent / "README.md").read_text(), f"README.md does not mention {name}"
