"""Configurations: presets, overrides, sentences."""

import pytest
import yaml

from kontrast.config import BaseConfig, merge, param, read_yaml
from kontrast.errors import ConfigError


class Section(BaseConfig):
    dim: int = param(16, "width", ge=1, le=4096, paper=256, unit="features")
    depth: int = param(2, "layers", ge=1)


class Example(BaseConfig):
    rate: float = param(0.1, "learning rate", gt=0, paper=0.01, source="[paper] 4.1")
    name: str | None = param(None, "a name")
    layers: list[int] = param(lambda: [1, 2], "layer sizes", min_length=1)
    section: Section = param(Section, "a section")
    tuned: Section = param(lambda: Section(dim=99), "a section with defaults of its own", paper={"depth": 9})


def test_preset_takes_the_papers_values_where_they_differ_and_overrides_win():
    assert Example.preset("cpu").section.dim == 16
    paper = Example.preset("paper", rate=0.5)
    assert (paper.rate, paper.section.dim, paper.layers) == (0.5, 256, [1, 2])
    assert Example.preset("paper", **{"section.dim": 3}).section.dim == 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rate": -1}, ["'rate'", "greater than 0", "-1"]),
        ({"rate": float("nan")}, ["'rate'", "finite"]),
        ({"section": {"dim": 0}}, ["'section.dim'", "1", "0"]),
        ({"section": {"dims": 4}}, ["'section.dims'", "did you mean 'dim'"]),
        ({"raet": 1}, ["'raet'", "did you mean 'rate'"]),
        ({"layers": []}, ["'layers'", "at least 1"]),
        ({"rate": "fast"}, ["'rate'", "number", "'fast'"]),
    ],
)
def test_a_bad_value_gives_one_sentence_with_field_range_and_value(values, words):
    with pytest.raises(ConfigError) as error:
        Example(**values)
    sentence = str(error.value)
    assert all(word in sentence for word in words), sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")


def test_options_are_data():
    options = {option.path: option for option in Example.options()}
    assert list(options) == [
        "rate", "name", "layers", "section.dim", "section.depth", "tuned.dim", "tuned.depth"
    ]  # fmt: skip
    assert [(options[name].default, options[name].paper) for name in ("tuned.dim", "tuned.depth")] == [
        (99, 256),
        (2, 9),
    ]
    assert options["section.dim"].bounds == {"ge": 1, "le": 4096}
    assert (options["rate"].paper, options["rate"].default, options["rate"].source) == (0.01, 0.1, "[paper] 4.1")
    assert options["layers"].default == [1, 2]


def test_frozen_and_changed_by_copy():
    config = Example()
    with pytest.raises(Exception, match="frozen"):
        config.rate = 1.0
    other = config.changed(**{"section.dim": 5, "name": "x"})
    assert (config.section.dim, other.section.dim, other.name) == (16, 5, "x")


def test_yaml_round_trip(tmp_path):
    config = Example(rate=0.25, section={"dim": 7})
    config.to_yaml(tmp_path / "config.yaml")
    assert Example(**read_yaml(tmp_path / "config.yaml")) == config
    assert yaml.safe_load(config.to_yaml())["section"] == {"dim": 7, "depth": 2}


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "plain text"])
def test_a_broken_yaml_file_is_named(tmp_path, text):
    file = tmp_path / "options.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"options\.yaml"):
        read_yaml(file)
    with pytest.raises(ConfigError, match=r"absent\.yaml"):
        read_yaml(tmp_path / "absent.yaml")


def test_merge_lays_dotted_and_nested_names_over_a_base_without_changing_it():
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert merge(base, {"a.b": 5, "a": {"e": 6}, "d": 7}) == {"a": {"b": 5, "c": 2, "e": 6}, "d": 7}
    assert base == {"a": {"b": 1, "c": 2}, "d": 3}


def test_a_section_given_in_part_keeps_the_defaults_of_its_field():
    assert Example(tuned={"depth": 5}).tuned == Section(dim=99, depth=5)
    assert Example.preset("cpu", **{"tuned.depth": 5}).tuned == Section(dim=99, depth=5)
    assert Example.preset("paper").tuned == Section(dim=256, depth=9)
