"""Folder layouts of inspection data sets, told by the names of folders and files alone.

Each finder takes the files of one place by relative name and returns its images, or None where the layout is another
one. No image is opened, with one exception: where masks also lie beside normal images (KolektorSDD), whether a mask is
empty says what its image is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import PurePosixPath

from kontrast.data.surfaces.files import StoredFile
from kontrast.data.surfaces.pixels import is_image, marks_anything, stem
from kontrast.data.surfaces.surface import ANOMALOUS, NORMAL, UNKNOWN, Surface
from kontrast.errors import DataError

Files = Mapping[str, StoredFile]
NORMAL_NAMES = frozenset({"good", "ok", "normal", "no", "healthy", "negative", "defect-free", "defect_free"})
_ANOMALOUS_NAMES = frozenset({"yes", "bad", "ko", "ng", "anomaly", "anomalous", "abnormal", "defect", "positive"})
_MASKS = "ground_truth"
_PARTS = frozenset({"train", "test"})
_BESIDE = ("_label", "_gt")


def find_surfaces(files: Files, name: str) -> list[Surface]:
    """The images of a folder in any of the layouts that are known.

    Args:
        files: files by name relative to the folder.
        name: the folder's name, which is the domain where sub-folders do not name one.

    Returns:
        The images, in order of their names.

    Raises:
        DataError: if there is no image, or a layout is broken.
    """
    images = {path: file for path, file in files.items() if is_image(path)}
    if not images:
        raise DataError("holds no image", file=name, mend="give PNG, JPEG, BMP, TIFF, WebP, DICOM or NIfTI files")
    for finder in (_parts, _beside, _yes_no):
        found = finder(images, name)
        if found is not None:
            return sorted(found, key=lambda surface: surface.id)
    return _loose(images, name)


def _parts(images: Files, name: str) -> list[Surface] | None:
    """MVTec AD, BTAD, MPDD, DTD-Synthetic: ``train/good``, ``test/<type>``, ``ground_truth/<type>``."""
    domains: dict[str, dict[str, StoredFile]] = defaultdict(dict)
    typed = False
    for path, file in images.items():
        parts = PurePosixPath(path).parts
        place = next((i for i, part in enumerate(parts) if part.lower() in {*_PARTS, _MASKS}), None)
        if place is None:
            continue
        typed = typed or len(parts) > place + 2
        domains["/".join(parts[:place]) or name][path] = file
    if not domains or not typed:
        return None
    return [surface for domain, inside in domains.items() for surface in _domain(domain, inside)]


def _domain(domain: str, inside: Files) -> list[Surface]:
    masks: dict[tuple[str, str], StoredFile] = {}
    images: list[tuple[str, str, str, StoredFile]] = []
    for path, file in inside.items():
        parts = PurePosixPath(path).parts
        place = next(i for i, part in enumerate(parts) if part.lower() in {*_PARTS, _MASKS})
        part, kind = parts[place].lower(), "/".join(parts[place + 1 : -1])
        if part == _MASKS:
            key = stem(path)
            masks[kind, key.removesuffix("_mask")] = file
        else:
            images.append((path, part, kind or "good", file))
    found, marked = [], bool(masks)
    for path, part, kind, file in images:
        label = NORMAL if kind.lower() in NORMAL_NAMES else ANOMALOUS
        mask = masks.get((kind, stem(path)))
        if marked and label == ANOMALOUS and mask is None and part == "test":
            what = f"has no mask for the anomalous image {path}"
            raise DataError(what, file=domain, mend=f"add {_MASKS}/{kind}/{stem(path)}_mask.png, or remove {_MASKS}")
        found.append(
            Surface(path, domain, part, label, "good" if label == NORMAL else kind, file,
                    mask if label == ANOMALOUS else None)
        )  # fmt: skip
    return found


def _beside(images: Files, name: str) -> list[Surface] | None:
    """KolektorSDD (``kos01/Part0.jpg`` beside ``Part0_label.bmp``) and KolektorSDD2 (``train/1.png``, ``1_GT.png``)."""
    by_stem = {(str(PurePosixPath(path).parent), stem(path).lower()): path for path in images}
    masks: dict[str, str] = {}
    for (folder, key), path in by_stem.items():
        for ending in _BESIDE:
            image = by_stem.get((folder, key.removesuffix(ending))) if key.endswith(ending) else None
            if image is not None:
                masks[image] = path
    if not masks:
        return None
    found = []
    for path, file in images.items():
        if path in masks.values():
            continue
        if path not in masks:
            raise DataError(f"has no mask beside the image {path}", file=name, mend=f"add {stem(path)}_label.bmp")
        folders = PurePosixPath(path).parts[:-1]
        part = next((folder.lower() for folder in folders if folder.lower() in _PARTS), "")
        outer = "/".join(folder for folder in folders[: None if part else -1] if folder.lower() not in _PARTS) or name
        mask = images[masks[path]]
        label = ANOMALOUS if marks_anything(mask) else NORMAL
        found.append(
            Surface(path, outer, part, label, "defect" if label == ANOMALOUS else "good", file,
                    mask if label == ANOMALOUS else None, group=None if part else "/".join(folders))
        )  # fmt: skip
    return found


def _yes_no(images: Files, name: str) -> list[Surface] | None:
    """Folders that name the label, such as ``no`` and ``yes`` of BrainMRI, ``good`` and ``bad``; no parts, no masks."""
    labels: dict[str, dict[str, tuple[int, StoredFile]]] = defaultdict(dict)
    for path, file in images.items():
        *outer, folder, _ = PurePosixPath("/", path).parts
        word = folder.lower()
        if word in NORMAL_NAMES or word in _ANOMALOUS_NAMES:
            label = NORMAL if word in NORMAL_NAMES else ANOMALOUS
            labels["/".join(part for part in outer if part != "/") or name][path] = (label, file)
    pairs = {domain: rows for domain, rows in labels.items() if {label for label, _ in rows.values()} == {0, 1}}
    if not pairs:
        return None
    return [
        Surface(path, domain, "", label, "good" if label == NORMAL else PurePosixPath(path).parent.name, file)
        for domain, rows in pairs.items()
        for path, (label, file) in rows.items()
    ]


def _loose(images: Files, name: str) -> list[Surface]:
    """Images of which nothing is known but the folder they lie in."""
    return [
        Surface(path, PurePosixPath(path).parent.as_posix() if "/" in path else name, "", UNKNOWN, "", file)
        for path, file in images.items()
    ]
