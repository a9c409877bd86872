"""The public check suite: what every system must keep, ours and plug-ins alike.

    from kontrast.testing import check_system
    check_system(MySystem)

or, to see each check by name in pytest::

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_contract(check, trial):       # trial = Trial(MySystem, tmp_path_factory.mktemp("trial"))
        check(trial)

Checks run on the data of `write_example` under the options of `smoke`. None of them knows a system's name.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from kontrast.config import Option
from kontrast.contract import Card, Embeddings, Figure, Measurement, System, SystemConfig
from kontrast.data.splits import Splits
from kontrast.errors import CheckpointError, ConfigError, DataError, KontrastError, NotFittedError
from kontrast.pipeline.train import train_run
from kontrast.training import Progress, TrainerConfig, encode_in_parts
from kontrast.training.grad_cache import check_rows_alone, row_count_of
from kontrast.training.slices import joined

PERMUTATIONS = 8
TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4


class Trial:
    """One system under test, with everything that is costly made once.

    Args:
        system: the class.
        folder: an empty folder to write into.
    """

    def __init__(self, system: type[System[Any, Any]], folder: Path) -> None:
        self.system = system
        self.folder = folder

    def make(self, **options: Any) -> System[Any, Any]:
        """An unfitted system under the smoke options."""
        return self.system(**{**self.system.smoke, **options})

    def fit(self, **options: Any) -> System[Any, Any]:
        """A system fitted on the example's training part."""
        return self.make(**options).fit(self.splits.train, self.splits.valid)

    @cached_property
    def path(self) -> Path:
        """The written example."""
        return self.system.write_example(self.folder / "example")

    @cached_property
    def data(self) -> Any:
        """The example, read."""
        return self.make().read(self.path)

    @cached_property
    def splits(self) -> Splits[Any]:
        """Its parts."""
        return self.make().split(self.data)

    @cached_property
    def fitted(self) -> System[Any, Any]:
        """A fitted system, shared by the checks: they must not change it."""
        return self.fit()

    @cached_property
    def test(self) -> Any:
        """The example's test part."""
        return self.splits.test


def check_card_is_complete(trial: Trial) -> None:
    """The card says what the system is, and what its ablation switches off."""
    card = trial.system.card
    assert isinstance(card, Card)
    for name in ("name", "title", "summary", "task", "primary_metric", "ablation", "null_control", "unit"):
        assert getattr(card, name).strip(), f"card.{name} is empty"
    assert card.modalities, "card.modalities is empty"
    assert card.formats, "card.formats is empty"


def check_options_are_documented_and_presets_valid(trial: Trial) -> None:
    """Every option has a meaning, and both presets are valid configurations."""
    config = trial.system.Config
    assert issubclass(config, SystemConfig)
    for option in config.options():
        assert option.doc.strip(), f"option '{option.path}' has no documentation"
    assert config.preset("cpu") == config()
    config.preset("paper")
    unknown = set(trial.system.answer_options) - set(config.model_fields)
    assert not unknown, f"answer_options names unknown options {sorted(unknown)}"


def bad_values(option: Option) -> Iterator[float]:
    """Values just outside the declared range of a number."""
    for kind, bound in option.bounds.items():
        if kind == "min_length":
            continue
        outside = {"gt": bound, "ge": bound - 1, "lt": bound, "le": bound + 1}[kind]
        yield int(outside) if option.type == "int" else float(outside)


def check_bad_options_are_refused(trial: Trial) -> None:
    """A value outside its declared range, NaN and an unknown name each give one sentence that names the option."""
    for option in trial.system.Config.options():
        wrong: list[Any] = list(bad_values(option))
        if option.type == "float":
            wrong.append(math.nan)
        for value in wrong:
            sentence = _refusal(lambda name=option.path, value=value: trial.make(**{name: value}), ConfigError)  # type: ignore[misc]
            assert option.path in sentence, f"{option.path}={value!r} is refused without naming it: {sentence}"
    assert "no_such_option" in _refusal(lambda: trial.make(no_such_option=1), ConfigError)


def check_unfitted_systems_say_so(trial: Trial) -> None:
    """Everything that needs learned state raises NotFittedError before `fit`."""
    unfitted = trial.make()
    for use in (unfitted.embed, unfitted.predict, unfitted.measure, unfitted.evaluate):
        _refusal(lambda use=use: use(trial.test), NotFittedError)  # type: ignore[misc]
    _refusal(lambda: unfitted.save(trial.folder / "unfitted"), NotFittedError)
    assert not (trial.folder / "unfitted").exists()


def check_missing_and_damaged_files_are_refused(trial: Trial) -> None:
    """A missing file is named; a cut, overwritten or emptied file gives a sentence or can still be read."""
    absent = trial.folder / "absent" / trial.path.name
    assert absent.name in _refusal(lambda: trial.make().read(absent), DataError)
    files = [trial.path] if trial.path.is_file() else [file for file in sorted(trial.path.rglob("*")) if file.is_file()]
    rng = np.random.default_rng(0)
    for number, file in enumerate(files[:8]):
        whole = file.read_bytes()
        damages = (whole[: len(whole) // 2], rng.bytes(len(whole)), b"", whole[: len(whole) // 3] + rng.bytes(64))
        for kind, damaged in enumerate(damages):
            copy = trial.folder / f"damaged-{number}-{kind}"
            shutil.copytree(trial.path.parent, copy)
            (copy / file.relative_to(trial.path.parent)).write_bytes(damaged)
            reader = trial.make()
            try:
                parts = reader.split(reader.read(copy / trial.path.name))
                assert reader.size(parts.train) >= 0
            except KontrastError as error:
                _check_sentence(str(error))
            shutil.rmtree(copy)


def check_splits_are_disjoint_and_repeatable(trial: Trial) -> None:
    """The example has all three parts, none gives another away, and splitting again gives the same."""
    system = trial.make()
    assert trial.splits.valid is not None, "the example has no validation part"
    assert trial.splits.test is not None, "the example has no test part"
    again = system.split(system.read(trial.path))
    for name, part in trial.splits:
        assert system.size(part) > 0, f"the {name} part is empty"
        assert system.size(getattr(again, name)) == system.size(part)
    for held_out in (trial.splits.valid, trial.splits.test):
        report = system.leaks(trial.splits.train, held_out)
        assert report.clean, f"the split leaks: {report.sentence}"
    overlap = system.leaks(trial.splits.train, trial.splits.train)
    assert not overlap.clean, "leaks() does not notice the training part leaking into itself"


def check_it_learns(trial: Trial) -> None:
    """On the example, the fitted system is far better than chance."""
    primary = trial.system.card.primary_metric
    value, chance = trial.fitted.evaluate(trial.test)[primary], trial.fitted.chance(trial.test)
    sign = 1 if trial.system.card.higher_is_better else -1
    permuted = _permuted_values(trial)
    spread = float(np.std(permuted, ddof=1))
    assert sign * (value - chance) > 4 * spread, f"{primary} is {value:.3f} where chance is {chance:.3f} ± {spread:.3f}"


def check_permuted_truth_gives_chance(trial: Trial) -> None:
    """With the truth of the test part permuted, the metric is at chance: nothing of it reaches the model."""
    chance = trial.fitted.chance(trial.test)
    values = _permuted_values(trial)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    mean = float(np.mean(values))
    assert abs(mean - chance) <= 4 * error + 1e-9, (
        f"permuted truth gives {mean:.4f} ± {error:.4f}, chance is {chance:.4f}"
    )


def _permuted_values(trial: Trial) -> list[float]:
    primary = trial.system.card.primary_metric
    fitted = trial.fitted
    return [fitted.evaluate(fitted.permuted(trial.test, seed))[primary] for seed in range(PERMUTATIONS)]


def check_same_seed_same_numbers(trial: Trial) -> None:
    """Two fits with one seed are equal bit for bit, whatever the global generators did before; another seed differs."""
    torch.manual_seed(123)
    np.random.seed(123)  # noqa: NPY002
    again = trial.fit()
    first, second = trial.fitted.embed(trial.test), again.embed(trial.test)
    assert np.array_equal(first.vectors, second.vectors), "the same seed gives other vectors"
    pd.testing.assert_frame_equal(trial.fitted.history_, again.history_)
    other = trial.fit(seed=trial.fitted.config.seed + 1).embed(trial.test)
    assert not np.array_equal(first.vectors, other.vectors), "another seed gives the same vectors"


def check_fit_leaves_data_and_generators_alone(trial: Trial) -> None:
    """`fit` and `embed` change neither the data nor the global random state."""
    system = trial.make()
    data = system.read(trial.path)
    parts = system.split(data)
    state = torch.random.get_rng_state()
    system.fit(parts.train, parts.valid)
    before = trial.fitted.embed(trial.splits.train)
    after = trial.fitted.embed(parts.train)
    assert np.array_equal(before.vectors, after.vectors), "fit changed the data it was given"
    assert torch.equal(torch.random.get_rng_state(), state), "fit or embed moved torch's global generator"


def check_fit_works_without_validation_data(trial: Trial) -> None:
    """`valid` is optional."""
    fitted = trial.make().fit(trial.splits.train)
    assert math.isfinite(fitted.evaluate(trial.test)[trial.system.card.primary_metric])


def check_embeddings_are_sound(trial: Trial) -> None:
    """Finite float32 vectors, unique ids within a kind, not all the same."""
    embeddings = trial.fitted.embed(trial.test)
    assert isinstance(embeddings, Embeddings)
    assert np.isfinite(embeddings.vectors).all(), "vectors are not finite"
    keys = _keys(embeddings)
    assert len(set(keys)) == len(keys), "ids are not unique within a kind"
    assert np.ptp(embeddings.vectors, axis=0).max() > 0, "all vectors are equal"
    for name in (embeddings.label, embeddings.hover):
        assert name is None or name in embeddings.columns, f"'{name}' is no column of the embeddings"
    assert not trial.fitted.model_.training, "the model is left in training mode"


def check_rows_are_embedded_alone(trial: Trial) -> None:
    """A row's vector is the same alone, among others and in any order."""
    fitted, data = trial.fitted, trial.test
    whole = fitted.embed(data)
    by_key = dict(zip(_keys(whole), whole.vectors))
    n = fitted.size(data)
    order = np.random.default_rng(0).permutation(n)
    for rows in ([0], [n - 1], order[: max(2, n // 3)], order):
        part = fitted.embed(fitted.take(data, rows))
        for key, vector in zip(_keys(part), part.vectors):
            assert key in by_key, f"row {key} appears only in a part of the data"
            worst = float(np.abs(vector - by_key[key]).max())
            assert worst <= TOLERANCE * max(1.0, float(np.abs(vector).max())), (
                f"row {key} moves by {worst:.2e} with its neighbours"
            )


def check_row_order_changes_no_metric(trial: Trial) -> None:
    """Metrics do not depend on the order of the rows."""
    fitted = trial.fitted
    order = np.random.default_rng(1).permutation(fitted.size(trial.test))
    first, second = fitted.evaluate(trial.test), fitted.evaluate(fitted.take(trial.test, order))
    for name, value in first.items():
        assert math.isclose(value, second[name], rel_tol=1e-4, abs_tol=1e-6), f"{name}: {value} became {second[name]}"


def check_measure_evaluate_and_items_agree(trial: Trial) -> None:
    """`evaluate` is `measure`; the primary metric is there, finite, and the mean of its items."""
    measurement = trial.fitted.measure(trial.test)
    assert isinstance(measurement, Measurement)
    assert measurement.metrics == trial.fitted.evaluate(trial.test)
    primary = trial.system.card.primary_metric
    assert primary in measurement.metrics, f"the primary metric '{primary}' is not measured"
    assert all(math.isfinite(value) for value in measurement.metrics.values()), f"not finite: {measurement.metrics}"
    if measurement.items is not None:
        assert measurement.item_ids is not None, "items have no ids"
        assert len(measurement.item_ids) == len(measurement.items) == len(set(measurement.item_ids))
        assert math.isclose(float(np.mean(measurement.items)), measurement.metrics[primary], rel_tol=1e-6, abs_tol=1e-9)


def check_save_and_load_change_nothing(trial: Trial) -> None:
    """A saved and loaded system gives the same vectors, metrics and answers, and saves to the same bytes."""
    folder = trial.fitted.save(trial.folder / "saved")
    loaded = trial.system.load(folder)
    assert loaded.config == trial.fitted.config
    assert np.array_equal(loaded.embed(trial.test).vectors, trial.fitted.embed(trial.test).vectors)
    assert loaded.evaluate(trial.test) == trial.fitted.evaluate(trial.test)
    pd.testing.assert_frame_equal(loaded.predict(trial.test), trial.fitted.predict(trial.test))
    again = loaded.save(trial.folder / "saved-again")
    assert _bytes(folder) == _bytes(again), "saving a loaded system writes other bytes"
    for file in folder.rglob("*"):
        assert file.suffix not in (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt"), f"{file.name} may be a pickle"


def check_damaged_models_are_refused(trial: Trial) -> None:
    """A missing, cut or foreign file of a saved model gives a sentence that names the folder or file."""
    folder = trial.fitted.save(trial.folder / "to-damage")
    for file in [file for file in sorted(folder.rglob("*")) if file.is_file()]:
        whole = file.read_bytes()
        for damaged in (None, whole[: len(whole) // 2], b"", b"\x00" * len(whole)):
            if damaged is None:
                file.unlink()
            else:
                file.write_bytes(damaged)
            try:
                trial.system.load(folder)
            except KontrastError as error:
                _check_sentence(str(error))
            else:
                exported = file.relative_to(folder).parts[0] in trial.system.exports
                assert exported or damaged == whole, f"a damaged {file.name} went unnoticed"
            file.write_bytes(whole)
    trial.system.load(folder)
    meta = json.loads((folder / "system.json").read_text())
    (folder / "system.json").write_text(json.dumps({**meta, "system": "another"}))
    assert "another" in _refusal(lambda: trial.system.load(folder), CheckpointError)
    (folder / "system.json").write_text(json.dumps({**meta, "format": 999}))
    assert "999" in _refusal(lambda: trial.system.load(folder), CheckpointError)


def check_predictions_are_a_table(trial: Trial) -> None:
    """`predict` answers in a table, the same each time, from data as `read` gives them for prediction."""
    data = trial.fitted.read(trial.path, purpose="predict")
    rows = np.arange(min(5, trial.fitted.size(data)))
    frame = trial.fitted.predict(trial.fitted.take(data, rows))
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) > 0, "predict gives an empty table"
    pd.testing.assert_frame_equal(frame, trial.fitted.predict(trial.fitted.take(data, rows)))


def check_baselines_and_figures(trial: Trial) -> None:
    """Baselines are measured by the primary metric; figures are whole and can be written as JSON."""
    primary = trial.system.card.primary_metric
    baselines = trial.fitted.baselines(trial.splits.train, trial.test)
    assert baselines, "there is no baseline"
    for name, metrics in baselines.items():
        assert math.isfinite(metrics.get(primary, math.nan)), f"baseline '{name}' has no {primary}"
    for figure in trial.fitted.figures(trial.test):
        assert isinstance(figure, Figure)
        assert figure.title
        assert figure.caption
        if figure.plotly is not None:
            json.dumps(figure.plotly)
        if figure.image is not None:
            assert figure.image.startswith(b"\x89PNG")


def check_all_arms_of_the_ablation_run(trial: Trial) -> None:
    """Off and shuffled train and measure; shuffled differs from on."""
    primary = trial.system.card.primary_metric
    vectors = {}
    for arm in ("off", "shuffled"):
        fitted = trial.fit(contrast=arm)
        assert math.isfinite(fitted.evaluate(trial.test)[primary]), f"contrast={arm} gives no {primary}"
        missing = {"stage", "epoch", "step"} - set(fitted.history_.columns)
        assert not missing, f"the history of contrast={arm} lacks the columns {sorted(missing)}"
        vectors[arm] = fitted.embed(trial.test).vectors
    full = trial.fitted.embed(trial.test).vectors
    for arm, other in vectors.items():
        assert not np.array_equal(other, full), f"contrast={arm} changes nothing"


def check_batches_may_be_encoded_in_parts(trial: Trial) -> None:
    """With a micro-batch a row is encoded as in the whole batch, and the gradient is autograd's own over the parts.

    A system that cannot have one, for batch norm or for a graph, says so in a sentence.
    """
    fitted = trial.fit()
    for stage in fitted.stages(trial.splits.train, trial.splits.valid):
        batch = stage.batches.get(0, 0)
        model = copy.deepcopy(stage.model).train()
        if not model.rowwise:
            return
        refusal = ""
        try:
            rows = max(1, row_count_of(model, batch) // 3)
            check_rows_alone(model, batch, rows)
        except ConfigError as error:
            refusal = str(error)
        if refusal:
            _check_sentence(refusal)
            assert "micro_batch" in refusal, f"which option is refused? {refusal}"
            return
        gradients = []
        for cut in (False, True):
            twin = copy.deepcopy(model)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                if cut:
                    encoded = encode_in_parts(twin, batch, rows)
                else:
                    encoded = joined([dict(twin.encode(part)) for part in twin.split(batch, rows)])
                total = torch.stack(list(twin.losses(encoded, batch, Progress(0, 1, 0)).values())).sum()
                total.backward()  # type: ignore[no-untyped-call]
            gradients.append({name: one.grad for name, one in twin.named_parameters() if one.grad is not None})
        assert gradients[0].keys() == gradients[1].keys(), "other parameters have a gradient"
        largest = max(float(one.abs().max()) for one in gradients[0].values())
        for name, one in gradients[0].items():
            apart = float((one - gradients[1][name]).abs().max())
            assert apart <= GRADIENT_TOLERANCE * max(largest, 1e-3), f"the gradient of {name} moves by {apart:.2e}"
        return


def check_run_folders_repeat_and_resume(trial: Trial) -> None:
    """Two runs write the same metrics and history, byte for byte; resuming a finished one changes nothing."""
    config = trial.make().config
    trainer = TrainerConfig(progress="off", loggers=[])
    runs = [
        train_run(trial.system, config, trainer, data=trial.path, out=trial.folder / f"run-{number}", baselines=False)
        for number in (1, 2)
    ]
    for name in ("metrics.json", "history.parquet", "model/model.safetensors"):
        assert (runs[0].path / name).read_bytes() == (runs[1].path / name).read_bytes(), (
            f"{name} differs between equal runs"
        )
    assert runs[0].record.status == "finished"
    assert (runs[0].path / "report.html").stat().st_size > 0
    before = _bytes(runs[0].model)
    train_run(trial.system, config, trainer, data=trial.path, out=runs[0].path, baselines=False, resume=True)
    assert _bytes(runs[0].model) == before
    sentence = _refusal(
        lambda: train_run(trial.system, config, trainer, data=trial.path, out=runs[0].path), DataError
    )  # fmt: skip
    assert "--overwrite" in sentence


CHECKS: tuple[Callable[[Trial], None], ...] = tuple(
    value
    for name, value in list(globals().items())
    if name.startswith("check_") and value.__module__ == __name__ and name != "check_system"
)
"""Every check, in the order in which a newcomer wants to see them fail."""


def check_system(system: type[System[Any, Any]], folder: Path | None = None) -> list[str]:
    """Runs every check on a system.

    Args:
        system: the class.
        folder: where to write; default: a temporary folder that is removed afterwards.

    Returns:
        Names of the checks that ran.

    Raises:
        AssertionError: at the first check that fails, saying what is wrong.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="kontrast-check-") as temporary:
            return check_system(system, Path(temporary))
    trial = Trial(system, folder)
    for check in CHECKS:
        check(trial)
    return [check.__name__ for check in CHECKS]


def _keys(embeddings: Embeddings) -> list[tuple[str, str]]:
    kinds = [embeddings.kind] * len(embeddings) if isinstance(embeddings.kind, str) else list(embeddings.kind)
    return list(zip(kinds, map(str, embeddings.ids)))


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def _refusal(action: Callable[[], Any], kind: type[KontrastError]) -> str:
    try:
        action()
    except kind as error:
        _check_sentence(str(error))
        return str(error)
    raise AssertionError(f"nothing was refused where a {kind.__name__} is due")


def _check_sentence(text: str) -> None:
    assert text.strip(), "an error says nothing"
    assert "\n" not in text, f"an error has more than one line: {text!r}"
    assert "Traceback" not in text
    assert len(text) <= 600, f"an error is too long to read: {text!r}"
