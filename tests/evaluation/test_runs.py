"""TREC run files: what is written is what `read_run` reads."""

from __future__ import annotations

import pytest

from kontrast.errors import DataError
from kontrast.evaluation import read_run
from kontrast.evaluation.runs import write_run


def test_a_written_run_reads_back_with_ranks_from_one(tmp_path):
    rows = [("q1", "a", 0.9), ("q2", "b", 0.8), ("q1", "c", 0.5)]
    file = write_run(tmp_path / "x.trec", rows, tag="seal")
    assert file.read_text().splitlines()[2] == "q1 Q0 c 2 0.500000 seal"
    assert read_run(file) == {"q1": {"a": 0.9, "c": 0.5}, "q2": {"b": 0.8}}


@pytest.mark.parametrize("row", [("q 1", "a", 1.0), ("q", "a b.html", 1.0), ("", "a", 1.0)])
def test_ids_that_would_break_the_columns_are_refused(tmp_path, row):
    with pytest.raises(DataError, match="holds a blank"):
        write_run(tmp_path / "x.trec", [row])
    assert not (tmp_path / "x.trec").exists()
