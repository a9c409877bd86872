"""From a path to mutation counts, whatever the format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kontrast.data.formats import TABLE_EXTENSIONS
from kontrast.data.mutations.counts import Events, MutationCounts
from kontrast.data.mutations.substitutions import Build, Strand
from kontrast.data.mutations.tables import (
    COHORTS,
    PATIENTS,
    WORKBOOKS,
    read_cohort_tables,
    read_long_table,
    read_patient_tables,
    read_workbooks,
    table_file,
)
from kontrast.data.mutations.variants import VARIANT_ENDINGS, check_positions, read_variants
from kontrast.data.mutations.vcf import read_vcf
from kontrast.errors import DataError

FORMATS = "MAF or a COSMIC export (.maf, .tsv, .txt), VCF, a long table, or a folder of these or of tables of counts"


def read_mutations(path: str | Path, *, build: Build | None = None) -> MutationCounts:
    """Counts of single-base substitutions by gene and by chromosome.

    ================================================== ===============================================================
    a folder with `patients`, `patient_gene_sub`, ...   counts of patients
    a folder with `gene_counts` and `chrom_counts`      counts of whole cohorts
    a folder with the official .xlsx workbooks          counts of whole cohorts
    a MAF or COSMIC file, or a folder of them           single mutations; without a column of cohorts the file's name
                                                        is the cohort
    a VCF file, or a folder of them                     single mutations; the name of a folder is the cohort
    a long table (.parquet, .csv, .jsonl)               mutations or counts
    ================================================== ===============================================================

    Args:
        path: the file or folder.
        build: of the positions, where the files do not say it; positions beyond the end of a chromosome are refused.

    Raises:
        DataError: naming the file, the row, what came, what is allowed and the mend.
    """
    path = Path(path)
    if not path.exists():
        raise DataError("no such file or folder", file=path, mend="check the path")
    if path.is_dir():
        if table_file(path, PATIENTS[0]) is not None or table_file(path, PATIENTS[1]) is not None:
            return read_patient_tables(path)
        if table_file(path, COHORTS[0]) is not None or table_file(path, COHORTS[1]) is not None:
            return read_cohort_tables(path)
        if any((path / name).is_file() for name in WORKBOOKS):
            return read_workbooks(path)
        files = sorted(file for file in path.rglob("*") if file.is_file() and _ending(file) in (".maf", ".tsv", ".vcf"))
        if not files:
            raise DataError("holds no file of mutations", file=path, mend=f"give {FORMATS}")
        return _events(path, files, build)
    ending = _ending(path)
    if ending in (*VARIANT_ENDINGS, ".vcf"):
        return _events(path, [path], build)
    if any(path.name.lower().endswith(end) for end in TABLE_EXTENSIONS):
        return read_long_table(path)
    raise DataError(f"has the extension '{path.suffix}'", file=path, mend=f"give {FORMATS}")


def _events(path: Path, files: Sequence[Path], build: Build | None) -> MutationCounts:
    parts: list[Events] = []
    strands: dict[Strand, Path] = {}
    builds: dict[Build, Path] = {}
    for file in files:
        strand: Strand = "genomic"
        if _ending(file) == ".vcf":
            events, stated = read_vcf(file)
            named = file.parent.name if file.parent != path and path.is_dir() else None
        else:
            events, strand, stated = read_variants(file)
            named = _stem(file)
        if events.cohort is None and named is not None:
            events = replace(events, cohort=np.full(len(events.sample), named, dtype=object))
        known = stated or build
        if known is not None:
            check_positions(file, events, known)
            builds.setdefault(known, file)
        strands.setdefault(strand, file)
        parts.append(events)
    for what, found in (("strands", strands), ("builds", builds)):
        if len(found) > 1:
            said = " and ".join(f"{name} ({file.name})" for name, file in found.items())
            raise DataError(f"mixes {what}: {said}", file=path, mend="give files of one kind at a time")
    return Events.joined(parts).count(path, strand=next(iter(strands)), build=next(iter(builds), None))


def _ending(file: Path) -> str:
    """The file name's ending in lower case, without .gz."""
    return Path(file.name.lower().removesuffix(".gz")).suffix


def _stem(file: Path) -> str:
    return re.sub(r"\.(maf|tsv|txt|vcf)(\.gz)?$", "", file.name, flags=re.IGNORECASE)
