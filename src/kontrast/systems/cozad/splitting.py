"""Which images are trained on, chosen on and tested on: whole domains are held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from kontrast.data.splits import Splits
from kontrast.data.surfaces import ANOMALOUS, NORMAL, Surface, SurfaceSet
from kontrast.errors import ConfigError, DataError, suggest
from kontrast.randomness import numpy_rng
from kontrast.systems.cozad.config import CoZADConfig

_TEST_SHARE = 0.5
_VALID_SHARE = 0.1


def held_out_domains(data: SurfaceSet, config: CoZADConfig) -> tuple[str, ...]:
    """Names of the domains that are tested.

    Raises:
        ConfigError: if a name is unknown, or no source is left.
    """
    known = sorted(data.domains)
    if config.held_out == "auto":
        names = [(whole_domains(data) or known)[-1]]
    else:
        names = [name.strip() for name in config.held_out.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ConfigError(f"option 'held_out': there is no domain '{name}'; {suggest(name, known)}.")
    if config.protocol == "zero-shot" and len(set(names)) == len(known):
        raise ConfigError(
            f"option 'held_out': the data have the domains {', '.join(known)}, and zero-shot training needs one that "
            "is not held out; bring another domain, or set --protocol in-domain."
        )
    return tuple(names)


def whole_domains(data: SurfaceSet) -> list[str]:
    """Names of the domains with both normal and anomalous images."""
    return [name for name in sorted(data.domains) if {NORMAL, ANOMALOUS} <= set(data.labels[data.of(name)].tolist())]


def split_surfaces(data: SurfaceSet, config: CoZADConfig) -> Splits[SurfaceSet]:
    """Normal images of the sources, their labelled test images, and the held-out domains' test images.

    Data without parts are dealt out by `split_seed`: half of the normal groups train, everything else tests.

    Raises:
        ConfigError: for held-out domains that do not fit.
        DataError: if a part is empty or the tested images are of one class.
    """
    held = held_out_domains(data, config)
    data = _dealt(data, config.split_seed)
    parts = np.array([row.part for row in data.rows])
    labels, tested = data.labels, data.of(*held)
    test = data.take(tested & (parts == "test") & (labels >= 0))
    found = set(test.labels.tolist())
    if found != {NORMAL, ANOMALOUS}:
        what = f"has no {'anomalous' if NORMAL in found else 'normal'} test image of {', '.join(held)}" if found else (
            f"has no labelled test image of {', '.join(held)}"
        )  # fmt: skip
        raise DataError(what, file=data.path, mend="bring both, or hold out another domain")
    sources = tested if config.protocol == "in-domain" else ~tested
    good = data.take(sources & (parts == "train") & (labels != ANOMALOUS))
    if not len(good):
        raise DataError(
            "has no normal training image of a source domain", file=data.path, mend="bring some in train/good"
        )
    # In its own domain nothing labelled is left to choose on but the test images, which are not for choosing.
    labelled = data.take(~tested & (parts == "test") & (labels >= 0))
    train, valid = _capped(good, config), labelled
    if config.choose != "labelled" or not whole_domains(labelled):
        train, valid = _held_back(train, config.split_seed)
    if config.contamination:
        train, valid = _contaminated(train, valid, labelled, config)
    reference = data.take(tested & (parts == "train") & (labels != ANOMALOUS))
    return Splits(
        replace(train, beside=labelled), valid if len(valid) else None, replace(test, beside=_capped(reference, config))
    )


def _dealt(data: SurfaceSet, seed: int) -> SurfaceSet:
    """Images with a part each; groups stay together."""
    if all(row.part for row in data.rows):
        return data
    rows: list[Surface] = []
    for row in data.rows:
        if row.part:
            rows.append(row)
            continue
        # A hash decides for each group on its own, so that further images change nothing for the others.
        draw = numpy_rng(seed, "part", row.domain, row.group or row.id).random()
        train = draw > _TEST_SHARE and row.label != ANOMALOUS
        rows.append(replace(row, part="train" if train else "test"))
    return replace(data, rows=tuple(rows))


def _capped(data: SurfaceSet, config: CoZADConfig) -> SurfaceSet:
    """At most `per_domain` images of a domain, in the order of the data."""
    if config.per_domain is None:
        return data
    kept: list[npt.NDArray[np.int64]] = []
    for domain in data.domains:
        rows = np.flatnonzero(data.of(domain))
        if len(rows) > config.per_domain:
            chosen = numpy_rng(config.split_seed, "cap", domain).permutation(len(rows))[: config.per_domain]
            rows = np.sort(rows[chosen])
        kept.append(rows)
    return data.take(np.sort(np.concatenate(kept))) if kept else data


def _held_back(train: SurfaceSet, seed: int) -> tuple[SurfaceSet, SurfaceSet]:
    """A tenth of each source domain's normal images, two at least, goes to validation."""
    back = np.zeros(len(train), dtype=bool)
    for domain in train.domains:
        rows = np.flatnonzero(train.of(domain))
        count = max(2, round(_VALID_SHARE * len(rows)))
        if len(rows) > 2 * count:
            back[numpy_rng(seed, "held back", domain).permutation(rows)[:count]] = True
    return train.take(~back), train.take(back)


def _contaminated(
    train: SurfaceSet, valid: SurfaceSet, labelled: SurfaceSet, config: CoZADConfig
) -> tuple[SurfaceSet, SurfaceSet]:
    """Some training images of each source give way to its anomalous ones, which are then not chosen on."""
    rows, used = list(train.rows), set()
    for domain in train.domains:
        places = [place for place, row in enumerate(rows) if row.domain == domain]
        odd = [row for row in labelled.rows if row.domain == domain and row.label == ANOMALOUS]
        rng = numpy_rng(config.split_seed, "contamination", domain)
        count = min(round(config.contamination * len(places)), len(odd) // 2)
        for place, pick in zip(rng.permutation(places)[:count], rng.permutation(len(odd))[:count]):
            rows[int(place)] = replace(odd[int(pick)], mask=None)
            used.add(odd[int(pick)].id)
    kept = np.array([row.id not in used for row in valid.rows], dtype=bool)
    return replace(train, rows=tuple(rows)), valid.take(kept)
