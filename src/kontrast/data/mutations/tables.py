"""Tables of counts: folders of parquet or CSV tables, long tables, and the official MS-ConTab workbooks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.data.formats import TABLE_EXTENSIONS, parse_table
from kontrast.data.mutations.counts import CLASSES, MutationCounts, count_table
from kontrast.data.mutations.substitutions import (
    CHROMOSOMES,
    SUBSTITUTIONS,
    Strand,
    chromosome_codes,
    chromosome_lengths,
    substitution_codes,
)
from kontrast.errors import DataError, suggest
from kontrast.extras import require

PATIENTS = ("patients", "patient_gene_sub", "patient_chrom_sub")
COHORTS = ("gene_counts", "chrom_counts")
WORKBOOKS = ("gene1_count.xlsx", "chrom1_count.xlsx")
_CARRIED = ("split", "half")
_WHOLE = 1e-6


def table_file(folder: Path, stem: str) -> Path | None:
    """The table of that name in a folder, whatever its format."""
    return next((folder / f"{stem}{end}" for end in TABLE_EXTENSIONS if (folder / f"{stem}{end}").is_file()), None)


def read_patient_tables(folder: Path) -> MutationCounts:
    """A folder with `patients` (patient, cohort, split, half), `patient_gene_sub` and `patient_chrom_sub`.

    The two long tables name a patient by `patient_idx`, the row of the first table counted from 0, and hold `gene` or
    `chrom`, `sub` and `n`. Alleles are those of the genomic plus strand.
    """
    files = [_existing(folder, stem) for stem in PATIENTS]
    patients = _columns(files[0], ("patient",), ("cohort", *_CARRIED))
    n = len(patients)
    rows, names, classes, counts = _long(files[1], "gene", n)
    genes, gene = np.unique(names.astype(str), return_inverse=True)
    by_gene = count_table(rows, gene.ravel() * CLASSES + classes, (n, CLASSES * len(genes)), counts)
    rows, names, classes, counts = _long(files[2], "chrom", n)
    by_chromosome = count_table(
        rows, _chromosomes(files[2], names) * CLASSES + classes, (n, CLASSES * len(CHROMOSOMES)), counts
    )
    return MutationCounts(
        samples=_words(patients, "patient"),
        cohorts=_words(patients, "cohort") if "cohort" in patients else None,
        genes=tuple(genes.tolist()),
        by_gene=by_gene,
        by_chromosome=by_chromosome,
        columns={name: _words(patients, name) for name in _CARRIED if name in patients},
        path=folder,
    )


def read_cohort_tables(folder: Path) -> MutationCounts:
    """A folder with `gene_counts` (cancer, gene, 12 classes) and `chrom_counts` (cancer, chrom, 12 classes).

    Each cancer type is one sample. Alleles are those of the coding strand, as in the official tables.
    """
    files = [_existing(folder, stem) for stem in COHORTS]
    gene = _columns(files[0], ("cancer", "gene", *SUBSTITUTIONS), ())
    chromosome = _columns(files[1], ("cancer", "chrom", *SUBSTITUTIONS), ())
    counts = [_whole_numbers(file, table[list(SUBSTITUTIONS)]) for file, table in zip(files, (gene, chromosome))]
    return _cohorts(folder, files, [gene, chromosome], counts)


def read_workbooks(folder: Path) -> MutationCounts:
    """The official workbooks: a sheet per cancer type, the first column unnamed, chromosome counts per base pair.

    Counts come back as whole numbers by the GRCh38 lengths. Rows keep the name of their sheet, so that no order of
    sheets matters.

    Raises:
        DataError: if a sheet lacks a class, the two workbooks have other sheets, or a count is not a whole number.
    """
    require("openpyxl", extra="mutations", purpose="to read .xlsx workbooks")
    files = [_existing(folder, name) for name in WORKBOOKS]
    tables, counts = [], []
    for file, name in zip(files, ("gene", "chrom")):
        table = _sheets(file, name)
        values = _numbers(file, table[list(SUBSTITUTIONS)])
        if name == "chrom":
            codes = _chromosomes(file, table[name].to_numpy(dtype=object))
            values = values * chromosome_lengths("hg38")[codes][:, None]
        tables.append(table)
        counts.append(_rounded(file, table, values))
    return _cohorts(folder, files, tables, counts)


def read_long_table(path: Path) -> MutationCounts:
    """A table of mutations or counts in long form: sample (or patient), cohort, gene, chromosome, substitution, n.

    A row stands for `n` mutations, one without that column; an empty gene means that it lies in none.
    """
    table = parse_table(path, list).frame
    table = table.rename(columns={"patient": "sample", "chrom": "chromosome", "sub": "substitution"})
    wanted = ("sample", "gene", "chromosome", "substitution")
    for name in wanted:
        if name not in table:
            what = f"has no column '{name}'; {suggest(name, map(str, table.columns))}"
            raise DataError(what, file=path, mend=f"give the columns {', '.join(wanted)} (cohort, n)")
    counts = _whole_numbers(path, table[["n"]]).ravel() if "n" in table else np.ones(len(table), np.int64)
    classes = substitution_codes(table["substitution"])
    _known(path, table["substitution"], classes, "substitution", ", ".join(SUBSTITUTIONS))
    codes = chromosome_codes(table["chromosome"])
    samples, rows = np.unique(np.array(_words(table, "sample")), return_inverse=True)
    empty = table["gene"].isna().to_numpy(dtype=bool)
    names = np.where(empty, "", table["gene"].astype(str))
    genes = np.unique(names[names != ""])
    inside, placed = names != "", codes >= 0
    carried = {}
    for name in ("cohort", *_CARRIED):
        if name in table:
            pairs = pd.DataFrame({"sample": _words(table, "sample"), "value": _words(table, name)}).drop_duplicates()
            if len(pairs) > len(samples):
                raise DataError(f"gives one sample several values of '{name}'", file=path, mend="give each sample one")
            carried[name] = tuple(pairs.sort_values("sample")["value"])
    n = len(samples)
    rows = rows.ravel()
    return MutationCounts(
        samples=tuple(samples.tolist()),
        cohorts=carried.pop("cohort", None),
        genes=tuple(genes.tolist()),
        by_gene=count_table(
            rows[inside],
            np.searchsorted(genes, names[inside]) * CLASSES + classes[inside],
            (n, CLASSES * len(genes)),
            counts[inside],
        ),
        by_chromosome=count_table(
            rows[placed], codes[placed] * CLASSES + classes[placed], (n, CLASSES * len(CHROMOSOMES)), counts[placed]
        ),
        columns=carried,
        path=path,
    )


def _cohorts(
    folder: Path, files: Sequence[Path], tables: Sequence[pd.DataFrame], counts: Sequence[npt.NDArray[np.int64]]
) -> MutationCounts:
    gene, chromosome = tables
    names = np.unique(np.array(_words(gene, "cancer")))
    others = set(_words(chromosome, "cancer"))
    if set(names.tolist()) != others:
        odd = sorted(set(names.tolist()) ^ others)[0]
        where = files[1] if odd in set(names.tolist()) else files[0]
        raise DataError(f"has no rows of the cancer type '{odd}'", file=where, mend="give both tables the same types")
    genes, column = np.unique(np.array(_words(gene, "gene")), return_inverse=True)
    chromosomes = _chromosomes(files[1], chromosome["chrom"].to_numpy(dtype=object))
    found = []
    for table, places, width, values in (
        (gene, column.ravel(), len(genes), counts[0]),
        (chromosome, chromosomes, len(CHROMOSOMES), counts[1]),
    ):
        rows = np.searchsorted(names, np.array(_words(table, "cancer")))
        columns = places[:, None] * CLASSES + np.arange(CLASSES)
        shape = (len(names), CLASSES * width)
        found.append(count_table(np.repeat(rows, CLASSES), columns.ravel(), shape, values.ravel()))
    strand: Strand = "coding"
    return MutationCounts(
        samples=tuple(names.tolist()),
        cohorts=tuple(names.tolist()),
        genes=tuple(genes.tolist()),
        by_gene=found[0],
        by_chromosome=found[1],
        whole_cohorts=True,
        strand=strand,
        build="hg38",
        path=folder,
    )


def _existing(folder: Path, name: str) -> Path:
    file = folder / name if "." in name else table_file(folder, name)
    if file is None or not file.is_file():
        raise DataError(f"has no table '{name}'", file=folder, mend="give all the tables of the data set")
    return file


def _columns(file: Path, needed: Sequence[str], optional: Sequence[str]) -> pd.DataFrame:
    def pick(known: Sequence[str]) -> list[str]:
        for name in needed:
            if name not in known:
                raise DataError(f"has no column '{name}'; {suggest(name, known)}", file=file)
        return [*needed, *(name for name in optional if name in known)]

    return parse_table(file, pick).frame


def _long(
    file: Path, name: str, n: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.object_], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(rows, names, classes, counts) of a long table by `patient_idx`."""
    table = _columns(file, ("patient_idx", name, "sub", "n"), ())
    numbers = _whole_numbers(file, table[["patient_idx", "n"]])
    beyond = np.flatnonzero(numbers[:, 0] >= n)
    if len(beyond):
        what = f"row {table.index[beyond[0]]} names the patient {numbers[beyond[0], 0]}, and there are {n}"
        raise DataError(what, file=file, mend="count patients from 0 in the order of the table 'patients'")
    classes = substitution_codes(table["sub"])
    _known(file, table["sub"], classes, "sub", ", ".join(SUBSTITUTIONS))
    return numbers[:, 0], np.array(_words(table, name), dtype=object), classes, numbers[:, 1]


def _words(table: pd.DataFrame, name: str) -> tuple[str, ...]:
    cells = table[name]
    if cells.isna().any():
        row = table.index[np.flatnonzero(cells.isna().to_numpy())[0]]
        raise DataError(f"column '{name}' is empty at row {row}", mend="fill it in or drop those rows")
    return tuple(cells.astype(str))


def _known(file: Path, cells: Any, codes: npt.NDArray[np.int64], name: str, allowed: str) -> None:
    bad = np.flatnonzero(codes < 0)
    if len(bad):
        what = f"row {cells.index[bad[0]]} has the {name} '{cells.iloc[bad[0]]}'"
        raise DataError(what, file=file, mend=f"allowed are {allowed}")


def _chromosomes(file: Path, names: npt.NDArray[np.object_]) -> npt.NDArray[np.int64]:
    cells = pd.Series(names)
    codes = chromosome_codes(cells)
    _known(file, cells, codes, "chromosome", "1 to 22, X and Y")
    return codes


def _numbers(file: Path, cells: pd.DataFrame) -> npt.NDArray[np.float64]:
    try:
        values = np.array(cells.apply(pd.to_numeric, errors="coerce"), dtype=np.float64)
    except (TypeError, ValueError):
        values = np.full(cells.shape, np.nan)
    bad = np.argwhere(~np.isfinite(values) | (values < 0))
    if len(bad):
        row, column = bad[0]
        came = repr(cells.iloc[row, column])[:40]
        what = f"row {cells.index[row]} has {came} in the column '{cells.columns[column]}'"
        raise DataError(what, file=file, mend="a count is a number from 0")
    return values


def _whole_numbers(file: Path, cells: pd.DataFrame) -> npt.NDArray[np.int64]:
    return _rounded(file, cells, _numbers(file, cells))


def _rounded(file: Path, cells: pd.DataFrame, values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    whole = np.rint(values)
    bad = np.argwhere(np.abs(values - whole) > _WHOLE * np.maximum(1, whole))
    if len(bad):
        row, column = bad[0]
        what = f"row {cells.index[row]} has the count {values[row, column]:g}, which is no whole number"
        raise DataError(what, file=file, mend="give raw counts")
    return whole.astype(np.int64)


def _sheets(file: Path, name: str) -> pd.DataFrame:
    """All sheets of a workbook one below the other, with their names in the column `cancer`."""
    try:
        sheets = pd.read_excel(file, sheet_name=None, engine="openpyxl", dtype=object)
    except Exception as error:
        # openpyxl raises whatever its parser met: a bad archive, a missing part, broken XML.
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"is not a whole workbook ({reason})", file=file, mend="copy or save it again") from None
    tables = []
    for cancer, sheet in sheets.items():
        sheet = sheet.rename(columns=lambda column: str(column).strip().replace("->", ">"))
        missing = [substitution for substitution in SUBSTITUTIONS if substitution not in sheet.columns]
        if missing or not len(sheet.columns):
            what = f"sheet '{cancer}' has no column '{missing[0] if missing else SUBSTITUTIONS[0]}'"
            raise DataError(what, file=file, mend="give the twelve classes as columns of every sheet")
        first = sheet.columns[0]
        tables.append(sheet.rename(columns={first: name})[[name, *SUBSTITUTIONS]].assign(cancer=str(cancer)))
    return pd.concat(tables, ignore_index=True)
