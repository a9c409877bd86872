"""The data set of docstrings: what is listed, under which name, how it is masked, and that modules do not straddle."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from kontrast.data import read_table
from kontrast.data.pydocs import build_pydocs, first_sentence, mask_name, part_of, plain_text
from kontrast.data.python_sources import compiled_definitions, source_definitions
from kontrast.errors import DataError

FILES = {
    "__init__.py": """
from ._impl import sort_rows, _hidden
from .shapes import Circle
__all__ = ['sort_rows', 'Circle']
""",
    "_impl.py": '''
def sort_rows(a: "list", axis: int = -1, *, kind=None) -> "list":
    """Arrange the rows of an array in ascending order. More text."""
def _hidden():
    """Never listed because the name is private."""
def not_exported():
    """Never listed because the module is private."""
raise RuntimeError("sources are parsed, never run")
''',
    "shapes.py": '''
class Base:
    def area(self):
        """Size of the surface inside the outline."""
class Circle(Base):
    """A round shape around a centre point.

    More about it.
    """
    def __init__(self, radius, centre=(0, 0)):
        pass
    @property
    def diameter(self):
        """Twice the distance from centre to outline."""
    @diameter.setter
    def diameter(self, value):
        """Change the distance between opposite points of it."""
    def _private(self):
        """Never listed because this method is private."""
''',
    "tests/__init__.py": "",
    "tests/test_it.py": 'def test_it():\n    """Never listed because this is a test."""\n',
    "broken.py": "def broken(:\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, text in FILES.items():
        path = tmp_path / "geometry_kit" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "geometry_kit"
    sys.modules.pop("geometry_kit", None)


def test_definitions_are_listed_once_under_their_shortest_public_path(package: str) -> None:
    found = {definition.path: definition for definition in source_definitions(package)}
    assert sorted(found) == [
        "geometry_kit.Circle", "geometry_kit.Circle.area", "geometry_kit.Circle.diameter", "geometry_kit.sort_rows",
    ]  # fmt: skip
    assert found["geometry_kit.sort_rows"].signature == "(a, axis=-1, *, kind=None)"
    assert found["geometry_kit.sort_rows"].module == "geometry_kit._impl"
    assert found["geometry_kit.Circle"].signature == "(radius, centre=(0, 0))"
    assert found["geometry_kit.Circle.diameter"].signature == ""
    assert found["geometry_kit.Circle.diameter"].doc.startswith("Twice")
    assert package not in sys.modules


def test_rows_of_a_small_package(package: str, tmp_path: Path) -> None:
    table = read_table(build_pydocs(tmp_path / "out.parquet", [package]), ["query", "target", "split"])
    rows = dict(zip(table.texts("target"), table.texts("query")))
    assert rows["geometry_kit.sort_rows(a, axis=-1, *, kind=None)"] == "Arrange the ___ of an array in ascending order."
    assert rows["geometry_kit.Circle(radius, centre=(0, 0))"] == "A round shape around a centre point."


def test_unknown_packages_give_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no documented functions in no_such_package"):
        build_pydocs(tmp_path / "out.parquet", ["no_such_package"])


@pytest.mark.parametrize(
    ("doc", "sentence"),
    [
        ("Return the sum. And more.", "Return the sum."),
        ("sort(a, axis=-1) -> array\n\nReturn a sorted copy of it", "Return a sorted copy of it"),
        ("Uses e.g. The rule, i.e. This one. Next.", "Uses e.g. The rule, i.e. This one."),
        ("Apply :func:`~numpy.sort` to ``x`` and `y`_ with :math:`n^2`.", "Apply sort to x and y with n^2."),
        ("See `the guide <https://x.y>`_ and [this](http://z) now.", "See the guide and this now."),
        ("A [`Model`] with **bold** words and *args.", "A Model with bold words and *args."),
        ("Heading\n=======\n\nText below it.", ""),
        ("One of the following:\n\n- a", ""),
        ("values (list of int): What they are.", ""),
        (".. versionadded:: 1.0\n\nDo the real thing.", "Do the real thing."),
        ("", ""),
    ],
)
def test_first_sentence(doc: str, sentence: str) -> None:
    assert first_sentence(doc) == sentence


def test_plain_text_keeps_names_whole() -> None:
    assert plain_text("Keep `a_b_c` and x_ here:") == "Keep a_b_c and x here"


@pytest.mark.parametrize(
    ("sentence", "path", "masked"),
    [
        ("Return matrix rank of array", "numpy.linalg.matrix_rank", "Return ___ of array"),
        ("Return a sorted copy", "numpy.sort", "Return a sorted copy"),
        ("Sort, then SORT again, sort() it", "numpy.sort", "___, then ___ again, ___ it"),
        ("Applies adaptive max pooling (AdaptiveMaxPool1d)", "torch.nn.AdaptiveMaxPool1d", "Applies ___ pooling (___)"),
        ("The max-pool of it", "torch.max_pool", "The ___ of it"),
        ("Find all of them", "re.findall", "Find all of them"),
        ("Set the value for it", "x.set_value", "Set the ___ for it"),
    ],
)
def test_masking(sentence: str, path: str, masked: str) -> None:
    assert mask_name(sentence, path) == masked


def test_parts_depend_on_the_module_alone_and_are_near_80_5_15() -> None:
    parts = pd.Series([part_of(f"package.module{i}") for i in range(4000)]).value_counts(normalize=True)
    assert parts["train"] == pytest.approx(0.8, abs=0.03)
    assert parts["valid"] == pytest.approx(0.05, abs=0.02)
    assert parts["test"] == pytest.approx(0.15, abs=0.02)


def test_compiled_functions_have_their_signatures() -> None:
    found = {definition.path: definition for definition in compiled_definitions("numpy")}
    assert found["numpy.add"].signature == "(x1, x2, out=None)"
    stdlib = {definition.path: definition for definition in compiled_definitions("stdlib")}
    assert stdlib["math.isclose"].signature == "(a, b, *, rel_tol=1e-09, abs_tol=0.0)"
    assert stdlib["str.partition"].signature == "(sep, /)"


@pytest.mark.slow
def test_the_whole_data_set(tmp_path: Path) -> None:
    frame = read_table(build_pydocs(tmp_path / "pydocs.parquet", ["stdlib", "numpy", "torch"])).frame
    assert len(frame) > 4000
    assert not frame["query"].str.casefold().duplicated().any()
    assert not frame["target"].duplicated().any()
    assert frame.groupby("module")["split"].nunique().max() == 1
    assert frame["query"].str.len().max() <= 300
    assert frame["query"].str.split().str.len().min() >= 3
    assert frame["target"].str.startswith("numpy.sort(").any()
    assert frame["target"].str.startswith("torch.topk(").any()
    assert not frame["target"].str.partition("(")[0].str.contains(r"(?:^|\.)_|\.tests?\.").any()
    assert not frame["query"].str.match(r"(?i)see |deprecated|alias").any()
    assert frame["split"].value_counts(normalize=True)["train"] == pytest.approx(0.8, abs=0.08)
