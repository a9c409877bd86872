"""What a person looks at: boxes around points in 3-D, shares within thresholds, a table, the space of rotations."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.contract import Figure
from kontrast.data.clouds import CloudSet, Poses
from kontrast.evaluation.poses import BOX_EDGES, box_corners
from kontrast.systems.hrc_pose.estimating import Estimates
from kontrast.systems.hrc_pose.measuring import TABLE, axis_only, check_poses, pose_errors

Floats = npt.NDArray[np.float64]
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Told apart by readers who see few colours (Okabe and Ito)."""
_SCENES = 6
_SHOWN = 400


def pose_figures(data: CloudSet, estimates: Estimates, symmetric: list[str]) -> list[Figure]:
    """Figures of views; what needs the truth only where it is known."""
    figures = [_boxes(data, estimates, symmetric)]
    if data.poses is not None:
        errors = pose_errors(estimates.poses, data.poses, axis_only(data, symmetric))
        figures += [_shares(data, errors), _table(data, errors), _space(data, estimates)]
    return figures


def _boxes(data: CloudSet, estimates: Estimates, symmetric: list[str]) -> Figure:
    """One view of each category with its boxes: the one of median rotation error, so that the picture is typical."""
    kinds = sorted(set(data.categories))[:_SCENES]
    names = np.asarray(data.categories)
    if data.poses is None:
        order = np.arange(len(data))
    else:
        degrees = pose_errors(estimates.poses, data.poses, axis_only(data, symmetric))["degrees"]
        order = np.argsort(degrees, kind="stable")
    traces: list[dict[str, Any]] = []
    rows_of_scenes = -(-len(kinds) // 2)
    layout: dict[str, Any] = {
        "height": 60 + 300 * rows_of_scenes,
        "margin": {"l": 0, "r": 0, "t": 30, "b": 0},
        "annotations": [],
    }
    layout["legend"] = {"orientation": "h", "y": -0.02}
    for number, kind in enumerate(kinds):
        rows = [row for row in order.tolist() if names[row] == kind]
        row = rows[len(rows) // 2]
        scene = "scene" if number == 0 else f"scene{number + 1}"
        traces += _scene(data, estimates.poses, row, scene, first=number == 0)
        # Two beside one another, row by row from the top.
        left, right = (number % 2) / 2, (number % 2 + 1) / 2
        top = 1 - (number // 2) / rows_of_scenes
        axis = {"title": {"text": ""}, "showticklabels": False}
        layout[scene] = {
            "domain": {"x": [left, right], "y": [top - 1 / rows_of_scenes, top - 0.04]},
            "aspectmode": "data",
            "xaxis": axis, "yaxis": axis, "zaxis": axis,
            # From the camera: it looks along z, and y points down.
            "camera": {"eye": {"x": 0.8, "y": -1.2, "z": -2.0}, "up": {"x": 0, "y": -1, "z": 0}},
        }  # fmt: skip
        layout["annotations"].append(
            {"x": (left + right) / 2, "y": top, "xref": "paper", "yref": "paper", "text": kind, "showarrow": False}
        )
    typical = "the view of median rotation error of each category"
    which = typical if data.poses is not None else "a view of each category"
    return Figure(
        "Boxes in 3-D",
        f"Points of {which} with the predicted box{' and the true one' if data.poses is not None else ''}; "
        "thick lines are the axes of the object, y up and x to the handle. Drag to turn.",
        plotly={"data": traces, "layout": layout},
    )


def _scene(data: CloudSet, found: Poses, row: int, scene: str, *, first: bool) -> list[dict[str, Any]]:
    points = np.round(data.points[row, :_SHOWN].astype(float), 4)
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter3d", "mode": "markers", "name": "points", "scene": scene, "showlegend": first,
            "legendgroup": "points", "x": points[:, 0].tolist(), "y": points[:, 1].tolist(), "z": points[:, 2].tolist(),
            "marker": {"size": 2, "color": "#888888"},
        }
    ]  # fmt: skip
    boxes = [("predicted", "#e07b00", found)] + ([("true", "#2a9d55", data.poses)] if data.poses is not None else [])
    for name, colour, poses in boxes:
        one = poses.take([row])
        corners = box_corners(one.rotation, one.translation, one.size)[0]
        traces.append(_lines([(corners[a], corners[b]) for a, b in BOX_EDGES], name, colour, 3, scene, first))
        middle = one.translation[0].astype(float)
        axes = [(middle, middle + one.rotation[0, :, axis] * one.size[0, axis] * 0.5) for axis in (0, 1)]
        traces.append(_lines(axes, name, colour, 8, scene, False))
    return traces


def _lines(
    pairs: list[tuple[Floats, Floats]], name: str, colour: str, width: int, scene: str, legend: bool
) -> dict[str, Any]:
    coordinates: list[list[float | None]] = [[], [], []]
    for start, end in pairs:
        for axis in range(3):
            coordinates[axis] += [round(float(start[axis]), 4), round(float(end[axis]), 4), None]
    return {
        "type": "scatter3d", "mode": "lines", "name": name, "legendgroup": name, "showlegend": legend, "scene": scene,
        "x": coordinates[0], "y": coordinates[1], "z": coordinates[2], "line": {"color": colour, "width": width},
    }  # fmt: skip


def _shares(data: CloudSet, errors: dict[str, Floats]) -> Figure:
    names = np.asarray(data.categories)
    traces = []
    for number, kind in enumerate(sorted(set(data.categories))):
        rows = names == kind
        for name, limit, axis in (("degrees", 60.0, "x"), ("centimetres", 6.0, "x2")):
            at = np.linspace(0, limit, 61)
            share = (errors[name][rows][None] < at[:, None]).mean(1)
            traces.append(
                {
                    "type": "scatter", "mode": "lines", "name": kind, "legendgroup": kind, "showlegend": axis == "x",
                    "x": at.round(2).tolist(), "y": share.round(4).tolist(), "xaxis": axis,
                    "yaxis": axis.replace("x", "y"),
                    "line": {"color": _COLOURS[number % len(_COLOURS)]},
                }
            )  # fmt: skip
    return Figure(
        "Shares within a threshold",
        "Share of views whose rotation (left) or translation (right) is off by less than so much, by category.",
        plotly={
            "data": traces,
            "layout": {
                "xaxis": {"title": {"text": "rotation error in degrees"}, "domain": [0, 0.46]},
                "xaxis2": {"title": {"text": "translation error in cm"}, "domain": [0.54, 1], "anchor": "y2"},
                "yaxis": {"title": {"text": "share of views"}, "range": [0, 1]},
                "yaxis2": {"range": [0, 1], "anchor": "x2"},
                "height": 380,
            },
        },
    )


def _table(data: CloudSet, errors: dict[str, Floats]) -> Figure:
    from kontrast.evaluation.poses import within

    names = np.asarray(data.categories)
    rows = []
    for kind in sorted(set(data.categories)):
        chosen = names == kind
        row: dict[str, Any] = {"category": kind, "views": int(chosen.sum())}
        for name in TABLE:
            good = within(errors["degrees"][chosen], errors["centimetres"][chosen], name)
            row[name] = round(100 * float(good.mean()), 1)
        row["median degrees"] = round(float(np.median(errors["degrees"][chosen])), 1)
        row["median cm"] = round(float(np.median(errors["centimetres"][chosen])), 2)
        rows.append(row)
    return Figure(
        "By category",
        "Share of views within both thresholds in per cent, and median errors; objects that are symmetric about y "
        "count by their y axis.",
        table=pd.DataFrame(rows),
    )


def _space(data: CloudSet, estimates: Estimates) -> Figure:
    """The two main components of the ranked rotation space; colour is the tilt of the object's y axis."""
    space = estimates.rotation_space.astype(np.float64)
    centred = space - space.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ axes[:2].T
    truth = check_poses(data)
    tilt = np.degrees(np.arccos(np.clip(-truth.rotation[:, 1, 1], -1, 1)))
    symbols = ("circle", "square", "diamond", "cross", "x", "triangle-up")
    kinds = sorted(set(data.categories))
    names = np.asarray(data.categories)
    traces = [
        {
            "type": "scatter", "mode": "markers", "name": kind,
            "x": flat[names == kind, 0].round(3).tolist(), "y": flat[names == kind, 1].round(3).tolist(),
            "text": [f"{value:.0f} degrees" for value in tilt[names == kind]],
            "marker": {
                "symbol": symbols[number % len(symbols)], "size": 7, "color": tilt[names == kind].round(1).tolist(),
                "cmin": 0, "cmax": 180, "colorscale": "Viridis", "showscale": number == 0,
                "colorbar": {"title": {"text": "tilt"}},
            },
        }
        for number, kind in enumerate(kinds)
    ]  # fmt: skip
    return Figure(
        "The ranked space of rotations",
        "Two main components; colour is the angle between the object's y axis and up in the image. Where the ranking "
        "worked colours run smoothly within each category.",
        plotly={
            "data": traces,
            "layout": {
                "xaxis": {"title": {"text": "component 1"}}, "yaxis": {"title": {"text": "component 2"}},
                "legend": {"orientation": "h", "y": 1.1}, "height": 460,
            },
        },
    )  # fmt: skip
