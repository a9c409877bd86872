"""Tables that list images: an index of ours, and the split files of VisA."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import PurePosixPath

from kontrast.data.surfaces.files import StoredFile, contents
from kontrast.data.surfaces.layouts import NORMAL_NAMES
from kontrast.data.surfaces.surface import ANOMALOUS, NORMAL, UNKNOWN, Surface
from kontrast.errors import DataError

INDEX = "index.csv"
VISA = "split_csv/1cls.csv"
_PARTS = {"train": "train", "test": "test", "valid": "train", "val": "train", "": ""}


def read_index(table: StoredFile, files: Mapping[str, StoredFile], folder: str = "") -> list[Surface]:
    """Images that a CSV file lists.

    Columns: ``file`` and either ``domain`` (default: the first folder of the file); optional ``split`` (train, test),
    ``label`` (0 or 1, or words), ``type``, ``mask`` (path or empty), ``group``. The columns of VisA's split files
    (``object``, ``split``, ``label``, ``image``, ``mask``) are understood as well.

    Args:
        table: the CSV file.
        files: the files that paths in it refer to.
        folder: the folder of the table, which its paths may be relative to.

    Raises:
        DataError: naming the row for a file that is not there, an unknown label or split, or a repeated file.
    """
    text = _text(table)
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = {name.strip().lower(): name for name in reader.fieldnames or [] if name}
    image = columns.get("file") or columns.get("image") or columns.get("path")
    if image is None:
        came = ", ".join(columns) or "none"
        raise DataError(
            f"has no column 'file' (columns: {came})", file=str(table), mend="name the images in a column 'file'"
        )
    named = columns.get("domain") or columns.get("object")
    found: dict[str, Surface] = {}
    for number, row in enumerate(_rows(reader, table), start=2):
        name = _cell(row, image)
        where = f"row {number}"
        if not name:
            raise DataError(f"{where} has an empty '{image}'", file=str(table), mend="drop the row or fill it in")
        file = _find(files, name, folder)
        if file is None:
            raise DataError(
                f"{where} names the file {name}, which is not there", file=str(table), mend="check the path"
            )
        if name in found:
            raise DataError(f"{where} names the file {name} again", file=str(table), mend="drop one of the rows")
        label = _label(_cell(row, columns.get("label")), f"{where} of {table}")
        part = _cell(row, columns.get("split")).lower()
        if part not in _PARTS:
            raise DataError(
                f"{where} has the split '{part}'", file=str(table), mend="use train, test or leave it empty"
            )
        parts = PurePosixPath(name).parts
        domain = _cell(row, named) or (parts[0] if len(parts) > 1 else "images")
        mask = _mask(row, columns.get("mask"), files, folder, f"{where} of {table}") if label == ANOMALOUS else None
        kind = _cell(row, columns.get("type")) or ("anomaly" if label == ANOMALOUS else "")
        found[name] = Surface(
            name, domain, _PARTS[part], label, "good" if label == NORMAL else kind, file, mask,
            _cell(row, columns.get("group")) or None,
        )  # fmt: skip
    if not found:
        raise DataError("has no rows", file=str(table), mend="list some images")
    _check_masks(list(found.values()), table)
    return list(found.values())


def _check_masks(rows: list[Surface], table: StoredFile) -> None:
    for domain in {row.domain for row in rows if row.mask is not None}:
        for row in rows:
            if row.domain == domain and row.label == ANOMALOUS and row.part != "train" and row.mask is None:
                what = f"gives no mask for {row.id}, though other images of '{domain}' have one"
                raise DataError(what, file=str(table), mend="add the mask, or leave out those of the whole domain")


def _text(table: StoredFile) -> str:
    try:
        return next(contents([table])).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"is no UTF-8 text ({error.reason} at byte {error.start})", file=str(table)) from None


def _rows(reader: csv.DictReader[str], table: StoredFile) -> list[dict[str, str]]:
    try:
        return list(reader)
    except csv.Error as error:
        raise DataError(f"is not valid CSV ({error})", file=str(table)) from None


def _cell(row: Mapping[str, str], column: str | None) -> str:
    return (row.get(column) or "").strip() if column is not None else ""


def _find(files: Mapping[str, StoredFile], name: str, folder: str) -> StoredFile | None:
    plain = PurePosixPath(name.replace("\\", "/")).as_posix()
    for candidate in (plain, f"{folder}/{plain}" if folder else plain):
        if candidate in files:
            return files[candidate]
    return None


def _label(word: str, where: str) -> int:
    if not word:
        return UNKNOWN
    lowered = word.lower()
    if lowered in ("0", "0.0") or lowered in NORMAL_NAMES:
        return NORMAL
    if lowered in ("1", "1.0", "anomaly", "anomalous", "bad", "defect", "yes", "ko", "ng", "abnormal"):
        return ANOMALOUS
    raise DataError(f"{where}: the label '{word}' is unknown", mend="use 0 or normal, 1 or anomaly, or leave it empty")


def _mask(
    row: Mapping[str, str], column: str | None, files: Mapping[str, StoredFile], folder: str, where: str
) -> StoredFile | None:
    name = _cell(row, column)
    if not name:
        return None
    file = _find(files, name, folder)
    if file is None:
        raise DataError(f"{where}: the mask {name} is not there", mend="check the path, or leave the cell empty")
    return file
