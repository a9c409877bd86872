"""Answers: poses as a table, as JSON, and as a folder with boxes for viewers and images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kontrast.data.clouds import CloudSet, Poses
from kontrast.data.clouds.depth import load_depth
from kontrast.evaluation.poses import BOX_EDGES, box_corners
from kontrast.extras import require
from kontrast.files import write_json, write_text
from kontrast.systems.hrc_pose.estimating import Estimates

_PLACE, _SIZE = ("tx", "ty", "tz"), ("size_x", "size_y", "size_z")
_ROTATION = tuple(f"r{row}{column}" for row in (1, 2, 3) for column in (1, 2, 3))


def pose_table(data: CloudSet, estimates: Estimates) -> pd.DataFrame:
    """A row for each view: id, category, place and size in metres, the rotation's nine numbers, row by row, and the
    confidence in the y and in the x axis (0 for an x axis that means nothing)."""
    poses = estimates.poses
    frame: dict[str, Any] = {"id": list(data.ids), "category": list(data.categories)}
    frame |= {name: poses.translation[:, i] for i, name in enumerate(_PLACE)}
    frame |= {name: poses.size[:, i] for i, name in enumerate(_SIZE)}
    flat = poses.rotation.reshape(-1, 9)
    frame |= {name: flat[:, i] for i, name in enumerate(_ROTATION)}
    frame |= {"confidence_y": estimates.trust[:, 0], "confidence_x": estimates.trust[:, 1]}
    return pd.DataFrame(frame)


def poses_of(answers: pd.DataFrame) -> Poses:
    """The poses that a table of `pose_table` holds."""
    rotation = answers[list(_ROTATION)].to_numpy(np.float32).reshape(-1, 3, 3)
    place, size = (answers[list(names)].to_numpy(np.float32) for names in (_PLACE, _SIZE))
    return Poses(rotation, place, size)


def write_poses(answers: pd.DataFrame, path: Path) -> Path:
    """Writes a JSON list: id, category, R (3 x 3), t and size in metres, and the confidences."""
    poses = poses_of(answers)
    return write_json(
        path,
        [
            {
                "id": str(row["id"]),
                "category": str(row["category"]),
                "R": np.round(poses.rotation[i].astype(float), 6).tolist(),
                "t": np.round(poses.translation[i].astype(float), 5).tolist(),
                "size": np.round(poses.size[i].astype(float), 5).tolist(),
                "confidence": [round(float(row["confidence_y"]), 4), round(float(row["confidence_x"]), 4)],
            }
            for i, row in enumerate(answers.to_dict("records"))
        ],
    )


def write_folder(answers: pd.DataFrame, data: CloudSet, folder: Path) -> None:
    """Writes ``poses.json``, ``boxes/ID.ply`` (the box's corners and edges in the camera's frame) and, for views that
    were cut from a depth image, ``images/NAME.png`` with the boxes drawn on it."""
    folder.mkdir(parents=True)
    (folder / "boxes").mkdir()
    write_poses(answers, folder / "poses.json")
    poses = poses_of(answers)
    corners = box_corners(poses.rotation, poses.translation, poses.size)
    for name, box in zip(answers["id"], corners):
        write_text(folder / "boxes" / f"{_file_name(str(name))}.ply", box_as_ply(box))
    if data.images is None or data.intrinsics is None:
        return
    for image in sorted({image for image in data.images if image is not None}):
        rows = [row for row, other in enumerate(data.images) if other == image]
        (folder / "images").mkdir(exist_ok=True)
        drawn = drawn_boxes(image, corners[rows], data.intrinsics[rows[0]])
        drawn.save(folder / "images" / f"{_file_name(image.stem)}.png")


def box_as_ply(corners: np.ndarray[Any, Any]) -> str:
    """The corners (8, 3) and edges of a box as text PLY."""
    lines = [
        "ply", "format ascii 1.0", "element vertex 8", "property float x", "property float y", "property float z",
        f"element edge {len(BOX_EDGES)}", "property int vertex1", "property int vertex2", "end_header",
    ]  # fmt: skip
    lines += [" ".join(f"{value:.5f}" for value in corner) for corner in corners]
    lines += [f"{first} {second}" for first, second in BOX_EDGES]
    return "\n".join(lines) + "\n"


def drawn_boxes(image: Path, corners: np.ndarray[Any, Any], camera: np.ndarray[Any, Any]) -> Any:
    """The depth image in greys, near is light, with the edges of boxes (n, 8, 3) drawn on it; a Pillow image."""
    pil = require("PIL.Image", extra="clouds", purpose="to draw boxes")
    draw_module = require("PIL.ImageDraw", extra="clouds", purpose="to draw boxes")
    depth = load_depth(image).astype(np.float64)
    there = depth > 0
    grey = np.zeros(depth.shape)
    if there.any():
        low, high = np.quantile(depth[there], [0.01, 0.99])
        grey[there] = 230 - 170 * np.clip((depth[there] - low) / max(high - low, 1e-9), 0, 1)
    picture = pil.fromarray(np.repeat(grey.astype(np.uint8)[..., None], 3, 2))
    draw = draw_module.Draw(picture)
    for box in corners:
        if (box[:, 2] <= 0).any():
            continue
        pixels = box @ camera.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        for first, second in BOX_EDGES:
            # Edges along the object's y axis, which says where up is, stand out.
            colour = (80, 200, 120) if second - first == 2 else (255, 140, 0)
            draw.line([tuple(pixels[first]), tuple(pixels[second])], fill=colour, width=2)
    return picture


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
