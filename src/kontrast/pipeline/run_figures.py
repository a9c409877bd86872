"""A system's own figures in a run folder: an index and one file each (plotly JSON, PNG or parquet)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from kontrast.errors import DataError
from kontrast.files import read_json, replacing, write_json
from kontrast.pipeline.report_charts import compact
from kontrast.pipeline.run_folder import RunFolder

if TYPE_CHECKING:
    from kontrast.contract import Figure


def write_figures(run: RunFolder, figures: Sequence[Figure]) -> None:
    """Writes the figures to figures/, in place of those that are there."""
    with replacing(run.figures) as folder:
        folder.mkdir()
        index = []
        for place, figure in enumerate(figures):
            stem = f"{place:02d}-{re.sub(r'[^a-z0-9]+', '-', figure.title.lower()).strip('-')[:40]}"
            if figure.plotly is not None:
                name = f"{stem}.json"
                (folder / name).write_text(json.dumps(compact(figure.plotly), ensure_ascii=False), encoding="utf-8")
            elif figure.image is not None:
                name = f"{stem}.png"
                (folder / name).write_bytes(figure.image)
            elif figure.table is not None:
                name = f"{stem}.parquet"
                # Columns of mixed values have no place in parquet; a table is there to be read.
                mixed = {column: str for column in figure.table if figure.table[column].dtype == object}
                figure.table.rename(columns=str).astype({str(key): kind for key, kind in mixed.items()}).to_parquet(
                    folder / name, index=False
                )
            index.append({"title": figure.title, "caption": figure.caption, "file": name})
        write_json(folder / "index.json", index)


def read_figures(run: RunFolder) -> list[Figure]:
    """The figures that `write_figures` left; none if there are none.

    Raises:
        DataError: if the index or a figure is missing or damaged.
    """
    from kontrast.contract import Figure

    file = run.figures / "index.json"
    if not file.is_file():
        return []
    figures = []
    try:
        for entry in read_json(file):
            path = run.figures / entry["file"]
            body: dict[str, Any]
            if path.suffix == ".json":
                body = {"plotly": read_json(path)}
            elif path.suffix == ".png":
                body = {"image": path.read_bytes()}
            else:
                body = {"table": pd.read_parquet(path)}
            figures.append(Figure(entry["title"], entry["caption"], **body))
    except (KeyError, TypeError, OSError, ValueError) as error:
        raise DataError(f"is damaged ({error})", file=file, mend="write the figures again") from None
    return figures
