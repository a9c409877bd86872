"""Views: parts and languages of the data, episodes of a few examples, and batches of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from kontrast.data.languages import LanguageTexts
from kontrast.data.splits import PARTS, Splits, fold_case, leak_free_parts
from kontrast.errors import DataError, suggest
from kontrast.progress import say
from kontrast.randomness import numpy_rng
from kontrast.systems.colap.config import ColapConfig
from kontrast.systems.colap.reading import Readings
from kontrast.training import IndexedBatches, ShuffledSampler

Ints = npt.NDArray[np.int64]
ENGLISH = ("eng_Latn", "eng", "en", "english", "English")


def split_languages(data: LanguageTexts, seed: int) -> Splits[LanguageTexts]:
    """The parts that the data name; else seeded, with translations and equal texts in one part.

    A language that has no part to train on but one to validate on is trained on that, as AmericasNLI wants it, and the
    translations of its texts go with them.
    """
    part = data.part.copy()
    unnamed = np.asarray([name is None for name in part])
    if unnamed.all():
        # A text and its translations share their pair id; without one a row stands for itself.
        keys = [list(data.pair), fold_case(pd.Series(data.whole_texts(), dtype=object))]
        part[:] = leak_free_parts(keys, seed, (0.6, 0.1, 0.3))
    elif unnamed.any():
        row = int(np.flatnonzero(unnamed)[0])
        what = f"says the part of some rows and not of others, such as {data.keys()[row]}"
        raise DataError(what, file=data.path, mend="give every row a part in a column 'split', or none")
    trained = set(data.language[part == "train"])
    moved = (part == "valid") & ~np.isin(data.language.astype(str), sorted(trained))
    pairs = {pair for pair in data.pair[moved] if pair is not None}
    part[moved | ((part == "valid") & np.asarray([pair in pairs for pair in data.pair]))] = "train"
    found = {name: data.take(part == name) if (part == name).any() else None for name in PARTS}
    train = found["train"]
    if train is None:
        came = ", ".join(sorted(set(part)))
        raise DataError(f"has no part to train on (it has {came})", file=data.path, mend="give a train or dev part")
    return Splits(train, found["valid"], found["test"])


def roles(config: ColapConfig, train: LanguageTexts) -> tuple[str, list[str]]:
    """The source language and the target languages of a training part.

    Raises:
        DataError: if a language is not there, or has no labelled texts.
    """
    labelled = train.take(train.labelled)
    counts = {language: int((labelled.language == language).sum()) for language in labelled.languages}
    if not counts:
        raise DataError("the training part has no labelled texts", file=train.path, mend="give labels to train on")
    source = config.source
    if source is None:
        free = {language: count for language, count in counts.items() if language not in (config.targets or ())}
        if not free:
            what = f"has labelled training texts in {', '.join(counts)} alone, all of them target languages"
            raise DataError(what, file=train.path, mend="give texts of a source language, or name fewer targets")
        english = [code for code in ENGLISH if code in free]
        source = english[0] if english else max(sorted(free), key=lambda language: free[language])
    targets = config.targets
    if targets is None:
        targets = [language for language in sorted(counts) if language != source]
    for option, language in (("source", source), *(("targets", target) for target in targets)):
        if language not in counts:
            what = f"has no labelled training texts in '{language}' (option '{option}'); {suggest(language, counts)}"
            raise DataError(what, file=train.path, mend="name a language of the data")
    return source, list(dict.fromkeys(targets))


@dataclass(frozen=True, eq=False)
class Episode:
    """A few labelled texts of a target language, each with a text of the source language.

    Attributes:
        target: (k,) places in the training part.
        source: (k,) places of the source texts: translations, or others of the same class.
    """

    target: Ints
    source: Ints

    def __len__(self) -> int:
        return len(self.target)


def draw_episode(
    train: LanguageTexts, classes: Mapping[str, int], source: str, target: str, config: ColapConfig
) -> Episode:
    """The K examples of a target language with their partners; smaller K are parts of larger ones.

    Of C classes each gives K // C examples and some give one more. Rows are drawn in the order of their pair ids, so
    that languages with the same sentences get the same ones.

    Raises:
        DataError: if translations are wanted and there are none.
    """
    pool = _pool(train, target)
    code = np.asarray([classes[train.label[row]] for row in pool], dtype=np.int64)
    rng = numpy_rng(config.seed, "episode")
    count = int(max(classes.values())) + 1
    order = rng.permutation(count)
    shares = np.full(count, config.k // count)
    shares[order[: config.k % count]] += 1
    chosen = []
    for number in range(count):
        own = pool[code == number]
        chosen.append(numpy_rng(config.seed, "examples", number).permutation(own)[: shares[number]])
    rows = np.concatenate(chosen).astype(np.int64)
    if len(rows) < config.k:
        say(f"note: {target} has {len(rows)} examples for the {config.k} that were asked for.")
    return Episode(rows, _partners(train, rows, classes, source, target, config))


def _pool(train: LanguageTexts, language: str) -> Ints:
    """Labelled rows of a language in the order of their pair ids, or of their names."""
    rows = np.flatnonzero((train.language == language) & train.labelled)
    names = [str(train.pair[row] if train.pair[row] is not None else train.ids[row]) for row in rows]
    found: Ints = rows[np.argsort(np.asarray(names, dtype=str), kind="stable")].astype(np.int64)
    return found


def _partners(
    train: LanguageTexts, rows: Ints, classes: Mapping[str, int], source: str, target: str, config: ColapConfig
) -> Ints:
    pool = _pool(train, source)
    own = {train.pair[row] for row in rows}
    if config.translations:
        place: dict[Any, int] = {}
        for row in pool:
            if train.pair[row] is not None:
                place.setdefault(train.pair[row], int(row))
        found = [place.get(train.pair[row], -1) if train.pair[row] is not None else -1 for row in rows]
        lacking = sum(row < 0 for row in found)
        if lacking and config.contrasts and config.xrcl > 0:
            what = f"{lacking} of {len(rows)} examples in '{target}' have no translation in '{source}'"
            mend = "give a column pair_id that translations share, or use --translations false or --xrcl 0 --xccl 1"
            raise DataError(what, file=train.path, mend=mend)
        if not lacking:
            return np.asarray(found, dtype=np.int64)
    partners = np.zeros(len(rows), dtype=np.int64)
    code = np.asarray([classes[train.label[row]] for row in pool], dtype=np.int64)
    translated = np.asarray([train.pair[row] is not None and train.pair[row] in own for row in pool])
    for number in sorted({classes[train.label[row]] for row in rows}):
        places = np.flatnonzero([classes[train.label[row]] == number for row in rows])
        mine = pool[(code == number) & ~translated]
        mine = mine if len(mine) else pool[code == number]
        drawn = numpy_rng(config.seed, "partners", number).permutation(mine)
        partners[places] = np.resize(drawn, len(places))
    return partners


def class_codes(data: LanguageTexts, classes: Mapping[str, int]) -> Ints:
    """(n,) class numbers, -1 where the label is not known.

    Raises:
        DataError: for a label that training did not have.
    """
    strange = sorted({label for label in data.label if label is not None and label not in classes})
    if strange:
        what = f"has the label '{strange[0]}', which the training texts of the source language do not have"
        raise DataError(what, file=data.path, mend=f"{suggest(strange[0], classes)}")
    return np.asarray([-1 if label is None else classes[label] for label in data.label], dtype=np.int64)


def source_batches(readings: Readings, codes: Ints, config: ColapConfig) -> IndexedBatches:
    """Stage 1: labelled texts of the source language."""
    section = config.source_stage

    def collate(rows: Ints, rng: np.random.Generator) -> dict[str, Any]:
        side = {f"source_{name}": tensor for name, tensor in readings.take(rows).tensors().items()}
        return {**side, "source_class": torch.from_numpy(codes[rows])}

    sampler = ShuffledSampler(len(codes), min(section.batch_size, len(codes)), seed=config.seed)
    return IndexedBatches(sampler, collate, seed=config.seed, data=_digest(readings, codes))


def episode_batches(
    target: Readings, source: Readings, codes: Ints, source_codes: Ints, config: ColapConfig
) -> IndexedBatches:
    """Stage 2: target texts beside source texts.

    Args:
        target: k texts.
        source: k texts.
        codes: (k,) classes of the target texts.
        source_codes: (k,) classes of the source texts.
        config: batch size, seed, null control.
    """
    k = len(codes)
    partner = np.arange(k)
    if config.contrast == "shuffled":
        # The null control: each target text is contrasted as if another pair's source text were its own.
        partner = numpy_rng(config.seed, "null control").permutation(k)
    wanted = config.contrasts or config.source_ce > 0

    def collate(rows: Ints, rng: np.random.Generator) -> dict[str, Any]:
        batch: dict[str, Any] = {f"target_{name}": part for name, part in target.take(rows).tensors().items()}
        batch["target_class"] = torch.from_numpy(codes[rows])
        if wanted:
            beside = partner[rows]
            batch |= {f"source_{name}": part for name, part in source.take(beside).tensors().items()}
            batch["source_class"] = torch.from_numpy(source_codes[beside])
            # What the contrast takes the source text's class to be: that of the text it stands beside.
            batch["paired_class"] = torch.from_numpy(source_codes[rows])
        return batch

    size = min(config.batch_size, k)
    # A last batch of one pair has nothing to contrast.
    sampler = ShuffledSampler(k, size, seed=config.seed, drop_last=k > size and k % size == 1)
    return IndexedBatches(sampler, collate, seed=config.seed, data=_digest(target, codes) + _digest(source, partner))


def _digest(readings: Readings, codes: Ints) -> str:
    digest = hashlib.sha256(codes.tobytes())
    if readings.vectors is not None:
        digest.update(readings.vectors.tobytes())
    if readings.rows is not None:
        digest.update(readings.rows.tokens.ids.tobytes())
    return digest.hexdigest()[:16]


def with_labels_permuted(data: LanguageTexts, seed: int) -> LanguageTexts:
    """Labels dealt out anew within each language."""
    label = data.label.copy()
    for language in data.languages:
        rows = np.flatnonzero((data.language == language) & data.labelled)
        # By name, so that the order of the rows does not matter.
        rows = rows[np.argsort(np.asarray(data.ids[rows], dtype=str), kind="stable")]
        label[rows] = label[numpy_rng(seed, "permuted truth", language).permutation(rows)]
    return replace(data, label=label)
