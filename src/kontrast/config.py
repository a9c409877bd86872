"""Configuration: frozen, documented, with allowed ranges as data.

One mechanism for systems, the trainer and everything else that has options. A field is declared with `param`, which
keeps its documentation, unit, source, allowed range and the paper's value in one place::

    class Config(BaseConfig):
        temperature: float = param(0.05, "softmax temperature", gt=0, le=10, paper=0.07, source="arXiv 2002.05709")
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Self, Union, cast, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from kontrast.errors import ConfigError, suggest
from kontrast.files import write_text

Preset = Literal["cpu", "paper"]
_SAME = object()


def param(
    default: Any,
    doc: str,
    *,
    paper: Any = _SAME,
    unit: str | None = None,
    source: str | None = None,
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    min_length: int | None = None,
) -> Any:
    """Declares one option.

    Args:
        default: value of the ``cpu`` preset.
        doc: what it means, in one line.
        paper: value of the ``paper`` preset where it differs.
        unit: unit of the value, such as "ms" or "tokens".
        source: where the value comes from, such as "[paper] 4.1".
        gt, ge, lt, le, min_length: the allowed range; tests generate bad values from it.
    """
    extra = {"unit": unit, "source": source}
    if paper is not _SAME:
        extra["paper"] = paper
    make = {"default_factory": default} if callable(default) else {"default": default}
    return Field(
        **make,
        description=doc,
        gt=gt,
        ge=ge,
        lt=lt,
        le=le,
        min_length=min_length,
        json_schema_extra={key: value for key, value in extra.items() if value is not None},
    )


@dataclass(frozen=True)
class Option:
    """One leaf of a configuration, as help texts and generated tests need it."""

    path: str
    type: str
    default: Any
    paper: Any
    doc: str
    unit: str | None
    source: str | None
    bounds: Mapping[str, float]


class BaseConfig(BaseModel):
    """A frozen configuration whose unknown or out-of-range fields give one clear sentence.

    Raises:
        ConfigError: from the constructor, naming the field, what came and what is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_sentence(type(self), error)) from None

    # Nested sections are then validated in place, so that an error names the whole dotted path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="before")
    @classmethod
    def _fill_sections(cls, values: Any) -> Any:
        """A section given in part keeps the defaults that its field declares, which may differ from its class's."""
        if not isinstance(values, Mapping):
            return values
        filled = dict(values)
        for name, field in cls.model_fields.items():
            if _section(field) is not None and isinstance(given := filled.get(name), Mapping):
                default = field.get_default(call_default_factory=True)
                filled[name] = merge(default.model_dump(), given)
        return filled

    @classmethod
    def preset(cls, name: Preset = "cpu", **overrides: Any) -> Self:
        """The ``cpu`` or ``paper`` values, changed by `overrides` (dotted names reach nested sections)."""
        return cls(**merge(cls._paper_values() if as_preset(name) == "paper" else {}, overrides))

    @classmethod
    def _paper_values(cls) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, field in cls.model_fields.items():
            section = _section(field)
            own = _extra(field).get("paper", {} if section is not None else _SAME)
            if section is not None:
                own = merge(section._paper_values(), own)
            if own is not _SAME and own != {}:
                values[name] = own
        return values

    @classmethod
    def options(
        cls, prefix: str = "", *, defaults: BaseConfig | None = None, paper: Mapping[str, Any] | None = None
    ) -> Iterator[Option]:
        """Every option of this configuration, nested sections included, in order of declaration.

        Args:
            prefix: put before every name.
            defaults: an instance whose values stand for the defaults.
            paper: values of the ``paper`` preset.
        """
        paper = cls._paper_values() if paper is None else paper
        for name, field in cls.model_fields.items():
            if field.exclude:
                continue
            section = _section(field)
            default = getattr(defaults, name) if defaults is not None else field.get_default(call_default_factory=True)
            if section is not None:
                yield from section.options(f"{prefix}{name}.", defaults=default, paper=paper.get(name, {}))
                continue
            extra = _extra(field)
            bounds = {
                key: getattr(item, key)
                for item in field.metadata
                for key in ("gt", "ge", "lt", "le", "min_length")
                if getattr(item, key, None) is not None
            }
            yield Option(
                path=f"{prefix}{name}",
                type=_type_name(field.annotation),
                default=default,
                paper=paper.get(name, default),
                doc=field.description or "",
                unit=extra.get("unit"),
                source=extra.get("source"),
                bounds=bounds,
            )

    def changed(self, **overrides: Any) -> Self:
        """A copy with some fields changed (dotted names reach nested sections)."""
        return type(self)(**merge(self.model_dump(), overrides))

    def to_yaml(self, path: str | Path | None = None) -> str:
        """YAML text of every field; written to `path` if given."""
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        if path is not None:
            write_text(path, text)
        return text


def as_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ConfigError: if it is neither cpu nor paper.
    """
    if name not in get_args(Preset):
        raise ConfigError(f"unknown preset '{name}'; known: {', '.join(get_args(Preset))}.")
    return cast(Preset, name)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A mapping from a YAML file.

    Raises:
        ConfigError: if the file is missing, is not YAML or is not a mapping.
    """
    try:
        value = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid YAML ({' '.join(str(error).split())}).") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: holds a {type(value).__name__}, not 'name: value' lines.")
    return value


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `overrides` laid over it; keys may be dotted ("encoder.dim") or nested mappings."""
    merged = {key: dict(value) if isinstance(value, Mapping) else value for key, value in base.items()}
    for key, value in overrides.items():
        head, _, rest = str(key).partition(".")
        if rest or isinstance(value, Mapping):
            inner = merged.get(head)
            below = {rest: value} if rest else value
            merged[head] = merge(inner if isinstance(inner, Mapping) else {}, below)
        else:
            merged[head] = value
    return merged


def _section(field: FieldInfo) -> type[BaseConfig] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseConfig) else None


def _extra(field: FieldInfo) -> dict[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _type_name(kind: Any) -> str:
    """A type in the words of help texts: "int | None", "clip|info_nce", "list[int]"."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type_name(parts[0])
    if origin is Literal:
        return "|".join(map(str, parts))
    if origin in (Union, UnionType):
        return " | ".join(map(_type_name, parts))
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_type_name, parts))}]"
    return "None" if kind is NoneType else str(getattr(kind, "__name__", kind))


def _sentence(config: type[BaseConfig], error: ValidationError) -> str:
    parts = []
    for item in error.errors()[:3]:
        path = ".".join(str(key) for key in item["loc"])
        if item["type"] == "extra_forbidden":
            owner = config
            for key in item["loc"][:-1]:
                section = _section(owner.model_fields[str(key)]) if str(key) in owner.model_fields else None
                owner = section or owner
            parts.append(f"unknown option '{path}'; {suggest(str(item['loc'][-1]), owner.model_fields)}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            message = message[0].lower() + message[1:]
            parts.append(f"option '{path}': {message}, got {item['input']!r}" if path else message)
    return "; ".join(parts).rstrip(".") + "."
