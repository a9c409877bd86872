"""Sentences, and lazy imports."""

import pytest

from kontrast.errors import DataError, MissingExtraError, suggest
from kontrast.extras import require


def test_an_error_is_one_sentence_with_file_problem_and_mend():
    error = DataError("column 'a' has 2 empty cells.", file="../x.csv", mend="fill them in")
    assert str(error) == "../x.csv: column 'a' has 2 empty cells; fill them in."


def test_suggest_names_the_nearest_and_all():
    assert suggest("anwser", ["answer", "question"]) == "did you mean 'answer'? known: answer, question"
    assert suggest("x", []) == "known: none"


def test_a_missing_extra_names_the_command_that_installs_it():
    with pytest.raises(MissingExtraError, match=r"pip install 'kontrast\[search\]'"):
        require("no_such_package_of_ours", extra="search", purpose="for approximate search")


def test_a_fault_inside_an_installed_module_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "broken_module_of_ours.py").write_text("import no_such_dependency_of_it\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency_of_it"):
        require("broken_module_of_ours", extra="x", purpose="for a test")
