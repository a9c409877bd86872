"""The command line: one verb, one function; heavy imports happen inside the verbs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kontrast import __version__
from kontrast.cli.system_help import SystemCommand
from kontrast.errors import DataError, KontrastError

if TYPE_CHECKING:
    from kontrast.contract import SystemConfig
    from kontrast.encoders import Precision
    from kontrast.pipeline.embed import Engine
    from kontrast.training import TrainerConfig

Verb = TypeVar("Verb", bound=Callable[..., Any])
OPEN_ENDED = {"allow_extra_args": True, "ignore_unknown_options": True}
FILE = click.Path(path_type=Path)

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
system_argument = click.argument("system", metavar="SYSTEM")
run_argument = click.argument("run", metavar="RUN", type=FILE)
other_data = click.option(
    "--data", "-d", type=FILE, help="File or folder; default: the test part of the run's own data."
)


def _settings(verb: Verb) -> Verb:
    """The options of every verb that configures a system."""
    for option in (
        click.option("--seed", type=int, help="Seed of weights, batch order and augmentation."),
        click.option("--config", "-c", type=FILE, help="YAML file of options; single options win over it."),
        click.option("--preset", help="cpu or paper; default: paper where there is an accelerator, else cpu."),
    ):
        verb = option(verb)
    return verb


class _InOrder(click.Group):
    """Lists verbs in the order in which a newcomer needs them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_InOrder,
    epilog=(
        "\b\nStart with:\n  kontrast list\n  kontrast example pairs my-data\n"
        "  kontrast train pairs --data my-data/pairs.csv"
    ),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(__version__, prog_name="kontrast")
def app() -> None:
    """Contrastive representation learning on your own data."""


@click.group("data", cls=_InOrder)
def data_app() -> None:
    """Official data sets: list, info, path, fetch."""


@app.command("list")
@as_json_option
def list_systems(as_json: bool) -> None:
    """Show the registered systems: what each is for and what it reads."""
    from kontrast.cli.output import emit, table
    from kontrast.contract import load_system, system_names

    cards = [load_system(name).card for name in system_names()]
    rows = [
        {"system": card.name, "title": card.title, "task": card.task, "modalities": ", ".join(card.modalities),
         "arXiv": card.arxiv}
        for card in cards
    ]  # fmt: skip
    emit({"systems": rows}, as_json, lambda: table(rows, columns=("system", "task", "modalities", "title")))


@app.command()
@system_argument
@as_json_option
def info(system: str, as_json: bool) -> None:
    """Explain a system: idea, formats, metric and every option.

    Options are shown with range, default and the paper's value.
    """
    from kontrast.cli.system_help import describe

    describe(system, as_json)


@app.command()
@system_argument
@click.argument("folder", metavar="DIR", type=FILE)
@as_json_option
def example(system: str, folder: Path, as_json: bool) -> None:
    """Write a small synthetic data set: a template for your own.

    It is in the system's standard format, and DIR must be new or empty.
    """
    from kontrast.cli.output import emit
    from kontrast.contract import load_system

    cls = load_system(system)
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError("is not empty", file=folder, mend="give a new folder, so that nothing of yours is replaced")
    path = cls.write_example(folder)
    emit(
        {"system": system, "data": str(path)},
        as_json,
        lambda: print(f"wrote {path}\ntry: kontrast train {system} --data {path}"),
    )


@app.command(cls=SystemCommand, context_settings=OPEN_ENDED)
@click.pass_context
@system_argument
@click.option("--data", "-d", type=FILE, help="File or folder of the system's standard format.")
@click.option("--out", "-o", type=FILE, help="Run folder; default: runs/SYSTEM.")
@_settings
@click.option("--resume", is_flag=True, help="Go on where the run in --out stopped.")
@click.option("--overwrite", is_flag=True, help="Replace a finished run in --out.")
@click.option("--print-config", is_flag=True, help="Print the whole configuration and stop.")
@click.option("--baselines/--no-baselines", default=True, help="Also measure the simple baselines.")
@as_json_option
def train(
    context: click.Context,
    system: str,
    data: Path | None,
    out: Path | None,
    preset: str | None,
    config: Path | None,
    seed: int | None,
    resume: bool,
    overwrite: bool,
    print_config: bool,
    baselines: bool,
    as_json: bool,
) -> None:
    """Train on your data, and measure on its held-out part.

    Model, metrics, curves, vectors and a report to open in a browser go to a run folder.

    Any option of the system can be set as --name value, and any of the trainer as --trainer.name value.
    """
    from kontrast.cli.output import emit, headline, requested
    from kontrast.cli.overrides import configure, parse_overrides
    from kontrast.contract import load_system
    from kontrast.pipeline.train import train_run
    from kontrast.progress import first_process

    cls = load_system(system)
    chosen = requested(preset)
    settings, trainer = configure(
        cls, preset=chosen, config_file=config, seed=seed, overrides=parse_overrides(context.args)
    )  # fmt: skip
    if print_config:
        _print_config(settings, trainer, as_json)
        return
    if data is None:
        raise click.UsageError("train needs --data FILE; kontrast example writes a template.")
    run = train_run(
        cls,
        settings,
        trainer,
        data=data,
        out=out if out is not None else Path("runs") / system,
        preset=chosen,
        command=_command(context),
        resume=resume,
        overwrite=overwrite,
        baselines=baselines,
    )
    if not first_process():
        return
    emit({"run": str(run.path), **asdict(run.metrics())}, as_json, lambda: headline(run, cls.card))


@app.command()
@run_argument
@other_data
@as_json_option
def evaluate(run: Path, data: Path | None, as_json: bool) -> None:
    """Measure a trained run on its test part or on other data.

    Other data need the answers too: labels, or the right-hand column.
    """
    from kontrast.cli.output import emit, metric_lines
    from kontrast.pipeline.evaluate import evaluate_run

    metrics = evaluate_run(run, data)
    emit(
        {"run": str(run), "data": str(data) if data else "test", "metrics": metrics},
        as_json,
        lambda: metric_lines(metrics),
    )


@app.command(cls=SystemCommand, context_settings=OPEN_ENDED)
@click.pass_context
@system_argument
@click.option("--data", "-d", type=FILE, required=True, help="File or folder of the system's standard format.")
@click.option("--out", "-o", type=FILE, help="Folder for the runs; default: runs/SYSTEM-ablation.")
@click.option("--seeds", type=click.IntRange(min=2), default=3, show_default=True, help="Seeds for each arm.")
@_settings
@as_json_option
def ablate(
    context: click.Context,
    system: str,
    data: Path,
    out: Path | None,
    seeds: int,
    preset: str | None,
    config: Path | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Find out whether the contrastive part helps on your data.

    Trains the full method, the method without it, and with its pairing shuffled, over several seeds, and compares.

    Goes on where an earlier call with the same options stopped. Options of the system and trainer as for train.
    """
    from kontrast.cli.output import emit, requested
    from kontrast.cli.overrides import configure, parse_overrides
    from kontrast.contract import load_system
    from kontrast.pipeline.ablate import ablate_system, ablation_lines

    cls = load_system(system)
    chosen = requested(preset)
    settings, trainer = configure(
        cls, preset=chosen, config_file=config, seed=seed, overrides=parse_overrides(context.args)
    )  # fmt: skip
    result = ablate_system(
        cls,
        settings,
        trainer,
        data=data,
        out=out if out is not None else Path("runs") / f"{system}-ablation",
        preset=chosen,
        command=_command(context),
        seeds=seeds,
    )
    emit(asdict(result), as_json, lambda: print("\n".join(ablation_lines(result))))


@app.command()
@run_argument
@other_data
@click.option(
    "--output",
    "-o",
    type=FILE,
    help=".parquet, .npz or a file of the field; for a folder of data a folder; default: RUN/embeddings.parquet.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    show_default=True,
    help="Of text transformers: exact, or about twice as fast on CPUs that know bf16.",
)
@click.option(
    "--engine", type=click.Choice(["local", "ray"]), help="Who embeds the shards of a folder; default: this process."
)
@click.option("--workers", type=click.IntRange(min=1), help="Workers of ray; default: one per CPU.")
@as_json_option
def embed(
    run: Path,
    data: Path | None,
    output: Path | None,
    precision: Precision,
    engine: Engine | None,
    workers: int | None,
    as_json: bool,
) -> None:
    """Write the vectors of some data.

    A folder of table files becomes a folder of vectors, file by file; given again, the command does what is left.

    Processes that torchrun starts share the work: torchrun --nproc-per-node 2 -m kontrast embed ...
    """
    from kontrast.cli.output import emit
    from kontrast.pipeline.embed import embed_run
    from kontrast.progress import first_process

    written, shape = embed_run(run, data, output, precision=precision, engine=engine, workers=workers)
    if not first_process():
        return
    emit(
        {"output": str(written), "rows": shape[0], "dim": shape[1]},
        as_json,
        lambda: print(f"wrote {shape[0]} vectors of {shape[1]} dimensions to {written}"),
    )


@app.command(context_settings=OPEN_ENDED)
@click.pass_context
@run_argument
@click.option("--data", "-d", type=FILE, required=True, help="File or folder to answer for.")
@click.option(
    "--output", "-o", type=FILE, help=".parquet, .csv, .jsonl or a file of the field; default: print the table."
)
@as_json_option
def predict(context: click.Context, run: Path, data: Path, output: Path | None, as_json: bool) -> None:
    """Answer for new data, as the system's task has it.

    Options of the system that steer the answer are given as --name value.
    """
    from kontrast.cli.output import emit, table
    from kontrast.cli.overrides import check_valued, parse_overrides
    from kontrast.contract import load_system
    from kontrast.pipeline.predict import predict_run
    from kontrast.pipeline.run_folder import RunFolder

    overrides = parse_overrides(context.args)
    known = list(load_system(RunFolder.open(run).record.system).Config.options())
    for name, value in overrides.items():
        check_valued(known, name, value)
    frame = predict_run(run, data, output, overrides)
    rows: list[dict[str, Any]] = [
        {str(name): cell for name, cell in row.items()} for row in frame.to_dict(orient="records")
    ]
    if output is not None:
        emit({"output": str(output), "rows": len(rows)}, as_json, lambda: print(f"wrote {len(rows)} rows to {output}"))
    else:
        emit({"rows": rows}, as_json, lambda: table(rows))


@app.command()
@run_argument
@as_json_option
def report(run: Path, as_json: bool) -> None:
    """Write RUN/report.html anew from what the run folder holds."""
    from kontrast.cli.output import emit
    from kontrast.pipeline.train import report_run

    path = report_run(run)
    emit({"report": str(path)}, as_json, lambda: print(f"wrote {path}"))


@app.command()
@click.argument("runs", metavar="RUN RUN ...", nargs=-1, type=FILE)
@as_json_option
def compare(runs: tuple[Path, ...], as_json: bool) -> None:
    """Put runs side by side: metrics and the options that differ.

    Runs that share test items are also compared in pairs, with an interval.
    """
    from kontrast.cli.output import comparison, emit
    from kontrast.pipeline.run_folder import RunFolder
    from kontrast.pipeline.run_tables import compare_runs

    if len(runs) < 2:
        raise click.UsageError("compare needs at least two run folders.")
    result = compare_runs([RunFolder.open(run) for run in runs])
    emit(result, as_json, lambda: comparison(result))


@app.command()
@click.argument("folders", metavar="[FOLDER ...]", nargs=-1, type=FILE)
@click.option(
    "--output", "-o", type=FILE, default=Path("RESULTS.md"), show_default=True, help="Markdown file to write."
)
@click.option("--plan", type=FILE, help="YAML file of ablations to make first, in the one FOLDER (runs/results).")
@click.option("--only", multiple=True, metavar="ROW", help="Make only this row of the plan; may be repeated.")
@click.option("--seeds", type=click.IntRange(min=2), help="Seeds for each arm; default: as the plan says.")
@click.option("--reduced", is_flag=True, help="Two seeds and the plan's reduced options: does the way work?")
@as_json_option
@click.pass_context
def results(
    context: click.Context,
    folders: tuple[Path, ...],
    output: Path,
    plan: Path | None,
    only: tuple[str, ...],
    seeds: int | None,
    reduced: bool,
    as_json: bool,
) -> None:
    """Write RESULTS.md, a table of all runs, from run folders.

    One line for each system and data set over its seeds, with intervals, baselines and ablation. With --plan the
    ablations are made first; what is finished already is not repeated.
    """
    from kontrast.cli.output import emit
    from kontrast.files import write_text
    from kontrast.pipeline.run_tables import find_runs, results_markdown

    if plan is None and (only or seeds or reduced):
        raise click.UsageError("--only, --seeds and --reduced belong to --plan.")
    if plan is not None:
        from kontrast.pipeline.plan import Plan, carry_out

        if len(folders) > 1:
            raise click.UsageError("with --plan give one FOLDER for its runs.")
        folders = folders or (Path("runs/results"),)
        chosen = Plan.read(plan).only(only)
        carry_out(
            chosen, folders[0], beside=plan.parent, reduced=reduced, seeds=seeds, command=_command(context)
        )  # fmt: skip
    found = find_runs(list(folders) or [Path("runs")])
    words = ["kontrast", "results", *map(str, folders or (Path("runs"),)), "--output", str(output)]
    if plan is not None:
        words += ["--plan", str(plan), *(["--reduced"] if reduced else [])]
    write_text(output, results_markdown(found, command=" ".join(words)))
    emit({"output": str(output), "runs": len(found)}, as_json, lambda: print(f"wrote {output} from {len(found)} runs"))


@data_app.command("list")
@as_json_option
def data_list(as_json: bool) -> None:
    """Known data sets and whether they are on this machine."""
    from kontrast.cli.output import emit, table
    from kontrast.data import catalogue

    rows = [
        {"name": entry.name, "here": "yes" if catalogue.is_here(entry.name) else "no",
         "systems": ", ".join(entry.systems), "title": entry.title}
        for entry in catalogue.entries()
    ]  # fmt: skip
    emit({"data": rows}, as_json, lambda: table(rows))


@data_app.command("info")
@click.argument("name")
@as_json_option
def data_info(name: str, as_json: bool) -> None:
    """What a data set is: origin, licence, citation, files."""
    from kontrast.cli.output import emit, fields
    from kontrast.data import catalogue

    facts = catalogue.entry(name).model_dump(mode="json")
    emit(facts, as_json, lambda: fields(facts))


@data_app.command("path")
@click.argument("name")
@as_json_option
def data_path(name: str, as_json: bool) -> None:
    """Where a data set lies on this machine; never downloads."""
    from kontrast.cli.output import emit
    from kontrast.data import catalogue

    path = catalogue.path(name)
    emit({"name": name, "path": str(path)}, as_json, lambda: print(path))


@data_app.command("fetch")
@click.argument("name")
@as_json_option
def data_fetch(name: str, as_json: bool) -> None:
    """Download or build a data set, and print where it lies.

    What is downloaded is checked by its sha256; some sets are built from what this machine has.
    """
    from kontrast.cli.output import emit
    from kontrast.data import catalogue

    path = catalogue.fetch(name)
    emit({"name": name, "path": str(path)}, as_json, lambda: print(path))


app.add_command(data_app)


def _command(context: click.Context) -> list[str]:
    """The words that reproduce this call."""
    return ["kontrast", *context.obj]


def _print_config(settings: SystemConfig, trainer: TrainerConfig, as_json: bool) -> None:
    import yaml

    whole = {**settings.model_dump(mode="json"), "trainer": trainer.model_dump(mode="json")}
    if as_json:
        print(json.dumps(whole))
    else:
        print(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True), end="")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: mendable errors become one sentence on standard error and exit code 2.

    Args:
        arguments: the words after ``kontrast``; default: those of the process.
    """
    from kontrast.progress import showing

    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with showing("off" if "--json" in words else "auto"):
            code = app(words, standalone_mode=False, prog_name="kontrast", obj=words)
    except KontrastError as error:
        code = _refuse(str(error), words)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        code = 2
    except click.ClickException as error:
        code = _refuse(error.format_message(), words)
    except (KeyboardInterrupt, click.Abort):
        print(f"kontrast: stopped{_way_on(words)}.", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # The reader has left; without this, the flush at exit would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        code = _refuse(f"{error.filename or 'the system'}: {error.strerror or error}.", words)
    raise SystemExit(code if isinstance(code, int) else 0)


def _way_on(words: Sequence[str]) -> str:
    ways = {
        "train": "; the same command with --resume goes on where it was",
        "ablate": "; the same command goes on where it was",
    }
    return ways.get(words[0], "") if words else ""


def _refuse(sentence: str, words: Sequence[str]) -> int:
    from kontrast.progress import first_process

    if "--json" in words and first_process():
        print(json.dumps({"error": sentence}))
    print(f"kontrast: {sentence}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
