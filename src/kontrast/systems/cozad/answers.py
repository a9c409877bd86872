"""Answers besides scores: least trusted training images, thresholds, heat maps on disk."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.data.surfaces import NORMAL, SurfaceSet, decode, sizes
from kontrast.data.tables import write_table
from kontrast.errors import CheckpointError
from kontrast.extras import require
from kontrast.files import read_json, write_json
from kontrast.systems.cozad.measuring import enlarged
from kontrast.systems.cozad.model import CoZADModel
from kontrast.systems.cozad.scoring import Evidence, Maps, Scoring

Pixels = npt.NDArray[np.uint8]
_CAUTION = "from normal images of the sources; on another domain the share of false alarms will differ"
_LARGEST_SIDE = 2048
# Dark violet, red, orange, pale yellow, at equal steps: darker is lower, also for readers who see no colours.
_COLOURS = np.array(
    [(0, 0, 10), (65, 15, 110), (150, 40, 95), (230, 95, 45), (250, 180, 60), (255, 255, 190)], np.float64
)


@dataclass(frozen=True)
class Trained:
    """What is kept of the sources to answer questions: names and scores, no image.

    Attributes:
        ids, domains: of the training images.
        normal_scores: scores of the sources' normal images that scores were chosen on, sorted, by domain.
        map_range: values of the anomaly map that are drawn in the first and in the last colour.
    """

    ids: tuple[str, ...]
    domains: tuple[str, ...]
    normal_scores: dict[str, list[float]]
    map_range: tuple[float, float]

    @classmethod
    def of(cls, train: SurfaceSet, evidence: Evidence, scoring: Scoring) -> Trained:
        """From the training images and what scores were chosen on."""
        scores: dict[str, list[float]] = {}
        for row, (domain, label) in enumerate(zip(evidence.domain, evidence.label)):
            if label == NORMAL:
                pooled = {name: float(evidence.pooled[name][row]) for name in scoring.image}
                scores.setdefault(domain, []).append(scoring.image_score(pooled))
        cells = [scoring.anomaly_map({name: maps[name][~inside] for name in scoring.pixel})  # type: ignore[misc]
                 for maps, inside in evidence.cells.values()]  # fmt: skip
        values = np.concatenate(cells) if cells else np.array([-1.0, 3.0])
        low, high = np.quantile(values, [0.5, 0.999])
        ids, domains = zip(*((row.id, row.domain) for row in train.rows))
        ordered = {name: sorted(found) for name, found in sorted(scores.items())}
        return cls(ids, domains, ordered, (float(low), float(max(high, low + 1e-6))))

    def save(self, path: Path) -> None:
        """Writes JSON."""
        write_json(path, {"ids": self.ids, "domains": self.domains, "normal_scores": self.normal_scores,
                          "map_range": self.map_range})  # fmt: skip

    @classmethod
    def load(cls, path: Path) -> Trained:
        """What `save` wrote.

        Raises:
            CheckpointError: if it is damaged.
        """
        facts = read_json(path)
        try:
            low, high = facts["map_range"]
            return cls(tuple(facts["ids"]), tuple(facts["domains"]), facts["normal_scores"], (low, high))
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"is damaged ({error!r})", file=path) from None


def weight_table(trained: Trained, model: CoZADModel, top_k: int) -> pd.DataFrame:
    """The training images with the least confidence: id, domain, weight, score of the net, least trusted first."""
    frame = pd.DataFrame(
        {
            "id": trained.ids,
            "domain": trained.domains,
            "weight": model.confidence.cpu().numpy().astype(np.float64),
            "score": model.image_scores.cpu().numpy().astype(np.float64),
        }
    )
    ordered = frame.sort_values(["weight", "score", "id"], ascending=[True, False, True], kind="stable")
    return ordered.head(top_k).reset_index(drop=True)


def threshold_table(trained: Trained, fpr: float) -> pd.DataFrame:
    """The score that a share `fpr` of normal source images exceeds: for each source and for all together."""
    groups = dict(trained.normal_scores)
    rows = [
        {"domain": name, "fpr": fpr, "threshold": float(np.quantile(values, 1 - fpr)), "images": len(values)}
        for name, values in [*groups.items(), ("all sources", [value for each in groups.values() for value in each])]
    ]
    return pd.DataFrame(rows).assign(caution=_CAUTION)


def write_maps(
    answers: pd.DataFrame,
    data: SurfaceSet,
    maps: Sequence[Maps],
    folder: Path,
    limits: tuple[float, float],
    smoothing: float,
) -> None:
    """Writes scores.csv, ``maps/<id>`` and ``overlays/<id>``, as PNG, into a new folder.

    Args:
        answers: the table.
        data: the images.
        maps: their anomaly maps; none are drawn if there are none.
        folder: to be made.
        limits: values of the first and the last colour, the same for all images.
        smoothing: deviation of the Gaussian filter, at 128 pixels.
    """
    pil = require("PIL.Image", extra="surfaces", purpose="to write heat maps")
    folder.mkdir(parents=True, exist_ok=True)
    write_table(answers, folder / "scores.csv")
    if not maps:
        return
    for row, each, (height, width) in zip(data.rows, maps, sizes(data)):
        shrink = min(1.0, _LARGEST_SIDE / max(height, width))
        extent = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        side = min(max(extent), 512)
        heat = pil.fromarray(heat_colours(enlarged([each], side, smoothing)[0], limits)).resize(
            extent, pil.Resampling.BILINEAR
        )
        image = pil.fromarray(next(decode([row.file], max(extent))).pixels).resize(extent, pil.Resampling.BILINEAR)
        name = _safe(row.id)
        for kind, picture in (("maps", heat), ("overlays", pil.blend(image, heat, 0.5))):
            target = folder / kind / (name if name.lower().endswith(".png") else f"{name}.png")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(png(picture))


def heat_colours(values: Maps, limits: tuple[float, float]) -> Pixels:
    """uint8 (h, w, 3) colours of a map (h, w)."""
    share = np.clip((values.astype(np.float64) - limits[0]) / (limits[1] - limits[0]), 0, 1) * (len(_COLOURS) - 1)
    low = np.minimum(share.astype(int), len(_COLOURS) - 2)
    part = (share - low)[..., None]
    return np.asarray(np.rint(_COLOURS[low] * (1 - part) + _COLOURS[low + 1] * part), dtype=np.uint8)


def png(picture: Any) -> bytes:
    """Bytes of a Pillow image as PNG."""
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()


def _safe(name: str) -> str:
    """A relative name that stays inside its folder."""
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("..", "/", ".")]
    return "/".join(part.replace(":", "_") for part in parts) or "image"
