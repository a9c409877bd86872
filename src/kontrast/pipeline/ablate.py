"""`ablate`: does the contrastive part help on these data?

Three arms on the same split and the same seeds: the full method, the contrastive part off, and the null control with
its pairing shuffled. The arms differ in the option `contrast` and in nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.config import Preset
from kontrast.contract import Card, System, SystemConfig
from kontrast.evaluation.intervals import Direction, PairedDifference, paired_difference
from kontrast.pipeline.run_folder import Ablation, AblationArm, RunFolder
from kontrast.pipeline.train import train_run
from kontrast.progress import first_process, say
from kontrast.training import TrainerConfig

ARMS = ("on", "off", "shuffled")


def ablate_system(
    system: type[System[Any, Any]],
    config: SystemConfig,
    trainer: TrainerConfig,
    *,
    data: str | Path,
    out: str | Path,
    preset: Preset = "cpu",
    command: Sequence[str] = (),
    seeds: int = 3,
) -> Ablation:
    """Trains and measures the three arms with each seed and compares them in pairs.

    Each run lies in ``out/seed-S/ARM``; a run that is finished there is not repeated, one that was cut off goes on. The
    verdict is written as ablation.json into the folder of the first full run, whose report shows it, and into `out`.

    Args:
        system: the system's class.
        config: its options; `config.seed` is the first seed, `config.contrast` is set by the arms.
        trainer: devices, precision, loggers.
        data: what `System.read` takes.
        out: folder for the runs.
        preset: the name recorded with the runs.
        command: words of the command that started it, for the record.
        seeds: number of seeds.

    Raises:
        DataError, CheckpointError: as `train_run` does.
    """
    card = system.card
    out = Path(out)
    chosen = tuple(range(config.seed, config.seed + seeds))
    runs: dict[str, list[RunFolder]] = {arm: [] for arm in ARMS}
    for seed in chosen:
        for arm in ARMS:
            say(f"seed {seed}, {title(card, arm)}")
            run = train_run(
                system,
                config.changed(seed=seed, contrast=arm),
                trainer,
                data=data,
                out=out / f"seed-{seed}" / arm,
                preset=preset,
                command=command,
                resume=True,
                baselines=arm == "on",
                report=arm == "on" and seed == chosen[0],
            )
            runs[arm].append(run)
    if not first_process():
        # Processes that trained along have done their part; the first one has the numbers.
        sys.exit()
    result = compare_arms(card, runs, chosen)
    first = runs["on"][0]
    first.write_ablation(result)
    RunFolder(out).write_ablation(result)
    from kontrast.pipeline.train import report_run

    report_run(first.path)
    return result


def title(card: Card, arm: str) -> str:
    """What a reader calls an arm."""
    return {
        "on": "the full method",
        "off": f"without {card.ablation}",
        "shuffled": f"null control: {card.null_control} shuffled",
    }[arm]


def compare_arms(card: Card, runs: dict[str, list[RunFolder]], seeds: tuple[int, ...]) -> Ablation:
    """The arms of finished runs, compared in pairs over seeds and, where there are, test items."""
    values = {arm: _seed_values(card, found) for arm, found in runs.items()}
    tables = {arm: _tables(found) for arm, found in runs.items()}
    differences = {arm: _difference(card, values, tables, arm) for arm in ARMS if arm != "on"}
    arms = []
    for arm in ARMS:
        against = differences.get(arm)
        arms.append(
            AblationArm(
                name=arm,
                title=title(card, arm),
                value=float(np.mean(values[arm])),
                difference=None if against is None else against.difference,
                difference_low=float("nan") if against is None else against.low,
                difference_high=float("nan") if against is None else against.high,
                seeds=tuple(map(float, values[arm])),
            )
        )
    sentences = [
        differences["off"].sentence(card.primary_metric),
        differences["shuffled"].sentence(card.primary_metric, part="The true pairing, against a shuffled one,"),
    ]
    return Ablation(card.primary_metric, card.higher_is_better, tuple(arms), seeds, " ".join(sentences))


def _seed_values(card: Card, runs: list[RunFolder]) -> npt.NDArray[np.float64]:
    return np.array([run.metrics().test[card.primary_metric] for run in runs])


def _tables(runs: list[RunFolder]) -> npt.NDArray[np.float64] | None:
    """(seeds, items) values in the order of the item names, if every run has the same items."""
    if not all("test" in run.metrics().items for run in runs):
        return None
    frames = [run.items(run.metrics().items["test"]).sort_values("id") for run in runs]
    if any(list(frame["id"]) != list(frames[0]["id"]) for frame in frames):
        return None
    return np.stack([frame["value"].to_numpy(np.float64) for frame in frames])


def _difference(
    card: Card,
    values: dict[str, npt.NDArray[np.float64]],
    tables: dict[str, npt.NDArray[np.float64] | None],
    arm: str,
) -> PairedDifference:
    direction: Direction = "max" if card.higher_is_better else "min"
    full, other = tables["on"], tables[arm]
    if full is not None and other is not None and full.shape == other.shape:
        return paired_difference(full, other, direction=direction)
    return paired_difference(values["on"], values[arm], direction=direction)


def ablation_lines(result: Ablation) -> list[str]:
    """The comparison in words, a line per arm and the sentence."""
    width = max(len(arm.title) for arm in result.arms)
    lines = [f"{result.metric}, mean over seeds {', '.join(map(str, result.seeds))}"]
    for arm in result.arms:
        line = f"  {arm.title.ljust(width)}  {arm.value:.4f}"
        if arm.difference is not None:
            line += f"   full − this: {arm.difference:+.4f}"
            if arm.difference_low == arm.difference_low:
                line += f"  95 % interval [{arm.difference_low:+.4f}, {arm.difference_high:+.4f}]"
        lines.append(line)
    return [*lines, result.sentence]
