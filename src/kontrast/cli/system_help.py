"""Help that follows the system: ``train SYSTEM --help`` and ``info SYSTEM`` list its options from its Config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kontrast.config import Option

BOUND_SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "min_length": "length ≥"}


class SystemCommand(click.Command):
    """A verb over a system: its help also lists the options of the system named on the command line."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from kontrast.contract.registry import load_system, system_names

        names = system_names()
        named = next((word for word in ctx.obj or () if word in names), None)
        if named is None:
            with formatter.section("Systems"):
                formatter.write_text(", ".join(names))
            with formatter.section("Options of a system"):
                formatter.write_text(
                    f"kontrast {ctx.info_name} SYSTEM --help lists them, and so does kontrast info SYSTEM."
                )
            return
        from kontrast.training import TrainerConfig

        with formatter.section(f"Options of {named}"):
            formatter.write_dl([_line(option) for option in load_system(named).Config.options()])
        with formatter.section("Options of the trainer"):
            formatter.write_dl([_line(option) for option in TrainerConfig.options("trainer.")])


def spelled(path: str) -> str:
    """An option as it is written on the command line."""
    return f"--{path.replace('_', '-')}"


def _line(option: Option) -> tuple[str, str]:
    paper = f"; paper: {option.paper}" if option.paper != option.default else ""
    return f"{spelled(option.path)} {option.type}", f"{option.doc} (default: {option.default}{paper})"


def option_rows(options: Iterable[Option]) -> list[dict[str, Any]]:
    """One table row per option."""
    return [
        {
            "option": spelled(option.path),
            "type": option.type,
            "range": ", ".join(f"{BOUND_SIGNS[key]} {value:g}" for key, value in option.bounds.items()),
            "default": _shown(option.default),
            "paper": _shown(option.paper),
            "meaning": option.doc
            + (f" [{option.unit}]" if option.unit else "")
            + (f" ({option.source})" if option.source else ""),
        }
        for option in options
    ]


def _shown(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str, list)) else str(value)


def describe(name: str, as_json: bool) -> None:
    """Prints everything about one system: card, formats, options."""
    from dataclasses import asdict

    from kontrast.cli.output import emit, fields, table
    from kontrast.contract import load_system
    from kontrast.training import TrainerConfig

    system = load_system(name)
    facts = asdict(system.card)
    rows = option_rows(system.Config.options())
    trainer = option_rows(TrainerConfig.options("trainer."))

    def human() -> None:
        fields({key: value for key, value in facts.items() if value not in (None, ())})
        print("\nOptions")
        table(rows)
        print("\nTrainer")
        table(trainer)

    emit({**facts, "options": rows, "trainer": trainer}, as_json, human)
