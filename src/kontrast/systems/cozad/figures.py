"""What a person looks at: heat maps, scores, ROC, confidence, the regulariser over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kontrast.contract import Figure
from kontrast.data.surfaces import ANOMALOUS, NORMAL, SurfaceSet, decode, load_masks
from kontrast.extras import require
from kontrast.systems.cozad.answers import heat_colours, png
from kontrast.systems.cozad.confidence import fence
from kontrast.systems.cozad.measuring import enlarged
from kontrast.systems.cozad.scoring import Maps

if TYPE_CHECKING:
    from kontrast.systems.cozad.system import CoZAD, Scored

Floats = npt.NDArray[np.float64]
_SIDE = 128
_GALLERY = 8
_BINS = 40


def surface_figures(system: CoZAD, data: SurfaceSet, scored: Scored) -> list[Figure]:
    """Figures of labelled images and of the training before."""
    return [
        _gallery(system, data, scored.scores, scored.maps),
        _histograms(data, scored.scores),
        _roc(data, scored.scores),
        _confidence(system),
        _regulariser(system),
    ]


def _gallery(system: CoZAD, data: SurfaceSet, scores: Floats, maps: list[Maps]) -> Figure:
    """Image, heat map and mask: anomalous images from the oddest to the least odd, and the oddest normal one."""
    pil = require("PIL.Image", extra="surfaces", purpose="to draw heat maps")
    odd = np.flatnonzero(data.labels == ANOMALOUS)
    good = np.flatnonzero(data.labels == NORMAL)
    ordered = odd[np.argsort(-scores[odd], kind="stable")]
    rows = ordered[np.linspace(0, len(ordered) - 1, min(_GALLERY - 1, len(ordered))).round().astype(int)]
    rows = np.append(rows, good[np.argmax(scores[good])])
    chosen = data.take(rows)
    limits = system.trained_.map_range
    columns = []
    for image, each, mask in zip(
        decode([row.file for row in chosen.rows], _SIDE),
        enlarged([maps[row] for row in rows], _SIDE, system.config.smoothing),
        load_masks(chosen, _SIDE),
    ):
        shown = np.repeat((mask * 255).astype(np.uint8)[..., None], 3, 2)
        columns.append(np.concatenate([image.pixels, heat_colours(each, limits), shown]))
    masks = "masks below" if data.masked & set(data.domains) else "there are no masks"
    return Figure(
        "Where it looks odd",
        f"Anomalous images from the oddest to the least odd, last the normal image with the highest score; {masks}.",
        image=png(pil.fromarray(np.concatenate(columns, 1))),
    )


def _histograms(data: SurfaceSet, scores: Floats) -> Figure:
    edges = np.linspace(scores.min(), max(scores.max(), scores.min() + 1e-9), _BINS + 1)
    centres = ((edges[1:] + edges[:-1]) / 2).round(6).tolist()
    groups = (("normal", NORMAL), ("anomalous", ANOMALOUS))
    return Figure(
        "Scores",
        "Image scores of normal and anomalous test images; where the two overlap no threshold can tell them apart.",
        plotly={
            "data": [
                {
                    "type": "bar", "name": name, "x": centres, "opacity": 0.6,
                    "y": np.histogram(scores[data.labels == label], edges)[0].tolist(),
                }
                for name, label in groups
            ],
            "layout": {
                "barmode": "overlay", "xaxis": {"title": {"text": "score"}}, "yaxis": {"title": {"text": "images"}},
            },
        },
    )  # fmt: skip


def _roc(data: SurfaceSet, scores: Floats) -> Figure:
    cuts = np.unique(scores)[::-1]
    shares = [
        [float((scores[data.labels == label] >= cut).mean()) for cut in (np.inf, *cuts)]
        for label in (NORMAL, ANOMALOUS)
    ]
    return Figure(
        "ROC curve",
        "Share of anomalous images found against the share of false alarms.",
        plotly={
            "data": [
                {"type": "scatter", "mode": "lines", "name": "cozad", "x": shares[0], "y": shares[1]},
                {
                    "type": "scatter", "mode": "lines", "name": "chance", "x": [0, 1], "y": [0, 1],
                    "line": {"dash": "dot"},
                },
            ],
            "layout": {
                "xaxis": {"title": {"text": "false alarms"}}, "yaxis": {"title": {"text": "anomalous images found"}},
            },
        },
    )  # fmt: skip


def _confidence(system: CoZAD) -> Figure:
    """Scores of training images in interquartile ranges from their domain's third quartile: the fence is at kappa."""
    model, trained = system.model_, system.trained_
    scores, weights = model.image_scores.cpu(), model.confidence.cpu().numpy()
    domains, kappa = np.array(trained.domains), system.config.confidence.kappa
    traces = []
    for domain in sorted(set(trained.domains)):
        here = np.flatnonzero(domains == domain)
        shifted, _ = fence(scores[here], kappa)
        low, high = np.quantile(shifted.numpy(), [0.25, 0.75])
        beyond = (shifted.numpy() - high) / max(high - low, 1e-9)
        traces.append(
            {
                "type": "scatter", "mode": "markers", "name": domain, "x": beyond.round(4).tolist(),
                "y": weights[here].round(4).tolist(), "text": [trained.ids[row] for row in here],
            }
        )  # fmt: skip
    below = int((weights < 1).sum())
    return Figure(
        "Confidence in the training images",
        f"{below} of {len(weights)} training images lie beyond the fence (dotted) of their domain and weigh less.",
        plotly={
            "data": traces,
            "layout": {
                "xaxis": {"title": {"text": "score, in interquartile ranges beyond the third quartile"}},
                "yaxis": {"title": {"text": "weight"}, "range": [0, 1.05]},
                "shapes": [
                    {"type": "line", "x0": kappa, "x1": kappa, "y0": 0, "y1": 1.05, "line": {"dash": "dot"}}
                ],
            },
        },
    )  # fmt: skip


def _regulariser(system: CoZAD) -> Figure:
    trace = system.model_.trace.cpu().numpy()
    steps = list(range(1, len(trace) + 1))
    curves = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": name,
            "x": steps,
            "y": trace[:, column].round(6).tolist(),
            "yaxis": axis,
        }
        for column, (name, axis) in enumerate((("support loss", "y"), ("query loss", "y"), ("weight decay", "y2")))
    ]
    return Figure(
        "Losses and regulariser",
        "Mean support loss before and query loss after the inner steps, and the strength of the weight decay that "
        "follows from the covariance of the two.",
        plotly={
            "data": curves,
            "layout": {
                "xaxis": {"title": {"text": "meta-iteration"}},
                "yaxis": {"title": {"text": "loss"}},
                "yaxis2": {"title": {"text": "weight decay"}, "overlaying": "y", "side": "right"},
            },
        },
    )
