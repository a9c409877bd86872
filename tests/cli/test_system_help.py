"""Option tables of `info` and of `train SYSTEM --help`."""

from kontrast.cli.system_help import option_rows
from kontrast.config import BaseConfig, param


class Section(BaseConfig):
    rate: float = param(0.1, "how fast", gt=0, le=1, paper=0.01, unit="per step", source="[paper] 4.1")


class Example(BaseConfig):
    part_one: Section = param(Section, "a section")
    name: str | None = param(None, "a name")


def test_a_row_tells_range_default_papers_value_unit_and_source():
    first, second = option_rows(Example.options())
    assert first == {
        "option": "--part-one.rate",
        "type": "float",
        "range": "> 0, ≤ 1",
        "default": 0.1,
        "paper": 0.01,
        "meaning": "how fast [per step] ([paper] 4.1)",
    }
    assert (second["option"], second["type"], second["default"]) == ("--name", "str | None", None)
