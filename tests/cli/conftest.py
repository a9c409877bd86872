"""What the tests of the command line share: calling it in this process, and one run trained for all of them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from command_line import SMALL, Call, Said

import kontrast.pipeline.train
from kontrast.cli.main import main


@pytest.fixture(scope="session", autouse=True)
def _no_umap():
    """UMAP compiles for half a minute in each process; its map has a test of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kontrast.pipeline.train, "installed", lambda extra: False)
        yield


@pytest.fixture
def kontrast_(capsys) -> Call:
    """Calls the command line in this process."""

    def call(*words: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        printed = capsys.readouterr()
        return Said(int(ended.value.code or 0), printed.out, printed.err)

    return call


@pytest.fixture(scope="session")
def example(tmp_path_factory) -> Path:
    """300 rows of the written example."""
    folder = tmp_path_factory.mktemp("example")
    with pytest.raises(SystemExit) as ended:
        main(["example", "pairs", str(folder / "whole")])
    assert not ended.value.code
    lines = (folder / "whole" / "pairs.csv").read_text().splitlines(keepends=True)
    path = folder / "pairs.csv"
    path.write_text("".join(lines[:301]))
    return path


@pytest.fixture(scope="session")
def rows(example) -> list[dict[str, str]]:
    """The rows of `example`."""
    with example.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="session")
def run(example, tmp_path_factory) -> Path:
    """A finished run on `example`; tests must not change it."""
    folder = tmp_path_factory.mktemp("runs") / "pairs"
    with pytest.raises(SystemExit) as ended:
        main(["train", "pairs", "--data", str(example), "--out", str(folder), "--json", *SMALL])
    assert not ended.value.code
    return folder
