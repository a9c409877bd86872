"""Files with one mutation per line: MAF, and tab-separated exports of COSMIC."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from kontrast.data.mutations.counts import Events
from kontrast.data.mutations.substitutions import (
    CHROMOSOMES,
    Build,
    Strand,
    allele_codes,
    build_of,
    chromosome_codes,
    chromosome_lengths,
)
from kontrast.errors import DataError, suggest

VARIANT_ENDINGS = (".maf", ".tsv", ".txt")
MAF = {
    "gene": ("Hugo_Symbol",),
    "chromosome": ("Chromosome",),
    "position": ("Start_Position", "Start_position"),
    "reference": ("Reference_Allele",),
    "alternative": ("Tumor_Seq_Allele2",),
    "sample": ("Tumor_Sample_Barcode",),
}
COSMIC = {
    "gene": ("GENE_SYMBOL", "Gene name"),
    "change": ("MUTATION_CDS", "Mutation CDS"),
    "sample": ("COSMIC_SAMPLE_ID", "SAMPLE_NAME", "ID_sample", "Sample name"),
}
OPTIONAL = {
    "first": ("Tumor_Seq_Allele1",),
    "cohort": ("cohort", "Cohort", "PRIMARY_SITE", "Primary site", "cancer_type"),
    "build": ("NCBI_Build", "GENOME_BUILD", "GRCh"),
    "place": ("MUTATION_GENOME_POSITION", "Mutation genome position"),
    "chromosome": ("CHROMOSOME",),
    "position": ("GENOME_START",),
}
_CDS = r"^c\.[^>]*?([ACGT])>([ACGT])$"
_PLACE = r"^([^:]+):(\d+)"


def read_variants(path: Path) -> tuple[Events, Strand, Build | None]:
    """The mutations of one MAF or COSMIC file (.maf, .tsv, .txt, each also with .gz), its strand and build.

    A MAF names alleles on the reference's plus strand, COSMIC's column of coding changes on the gene's own strand.

    Raises:
        DataError: if the file is neither, is damaged, or a needed cell is empty or of the wrong kind.
    """
    header, skipped = _header(path)
    cosmic = {name: _find(header, words) for name, words in COSMIC.items()}
    if cosmic["change"] is not None:
        columns = _needed(path, header, cosmic, COSMIC) | _optional(header)
        if "place" not in columns and not {"chromosome", "position"} <= columns.keys():
            what = f"has no column '{OPTIONAL['place'][0]}', and no CHROMOSOME with GENOME_START"
            raise DataError(what, file=path, mend="export the mutations with their genome positions")
        frame = _cells(path, columns, skipped)
        return _cosmic_events(path, frame), "coding", _build(path, frame)
    columns = _needed(path, header, {name: _find(header, words) for name, words in MAF.items()}, MAF)
    columns = _optional(header) | columns
    frame = _cells(path, columns, skipped)
    return _maf_events(path, frame), "genomic", _build(path, frame)


def _maf_events(path: Path, frame: pd.DataFrame) -> Events:
    _filled(path, frame, ("chromosome", "position", "reference", "alternative", "sample"))
    alternative = frame["alternative"]
    if "first" in frame:
        # Older files write a heterozygous call the other way round: the second allele is the reference's.
        alternative = alternative.where(alternative != frame["reference"], frame["first"])
    return Events(
        _patients(frame["sample"]),
        _cohorts(path, frame),
        _objects(frame["gene"].where(~frame["gene"].isin(["Unknown", "."]), "")),
        chromosome_codes(frame["chromosome"]),
        _positions(path, frame),
        allele_codes(frame["reference"], alternative),
    )


def _cosmic_events(path: Path, frame: pd.DataFrame) -> Events:
    _filled(path, frame, ("gene", "sample"))
    # A line without coding change or place (an indel, a change of copy number) is no single-base substitution.
    if "place" in frame:
        found = frame["place"].str.extract(_PLACE)
        frame = frame.assign(chromosome=found[0].fillna(""), position=found[1].fillna("0"))
    frame = frame.assign(position=frame["position"].where(frame["position"] != "", "0"))
    change = frame["change"].str.extract(_CDS).fillna("")
    return Events(
        _patients(frame["sample"]),
        _cohorts(path, frame),
        _objects(frame["gene"].str.replace(r"_ENST\d+.*$", "", regex=True)),
        chromosome_codes(frame["chromosome"]),
        _positions(path, frame),
        allele_codes(change[0], change[1]),
    )


def _patients(samples: pd.Series) -> npt.NDArray[np.object_]:
    """Names of patients: of a TCGA barcode its first 12 characters, else the sample's name."""
    return _objects(samples.where(~samples.str.startswith("TCGA-"), samples.str.slice(0, 12)))


def _objects(cells: pd.Series) -> npt.NDArray[np.object_]:
    return cells.to_numpy(dtype=object)


def _cohorts(path: Path, frame: pd.DataFrame) -> npt.NDArray[np.object_] | None:
    if "cohort" not in frame:
        return None
    _filled(path, frame, ("cohort",))
    return _objects(frame["cohort"])


def _positions(path: Path, frame: pd.DataFrame) -> npt.NDArray[np.int64]:
    values = pd.to_numeric(frame["position"], errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(~np.isfinite(values) | (values < 0))
    if len(bad):
        what = f"line {frame.index[bad[0]]} has the position '{frame['position'].iloc[bad[0]]}'"
        raise DataError(what, file=path, mend="give base pairs, a whole number from 1")
    return values.astype(np.int64)


def check_positions(path: Path, events: Events, build: Build) -> None:
    """Refuses positions beyond the end of their chromosome, which show that the build is another one.

    Raises:
        DataError: naming the first.
    """
    known = events.chromosome >= 0
    ends = np.where(known, chromosome_lengths(build)[events.chromosome], np.iinfo(np.int64).max)
    beyond = np.flatnonzero(events.position > ends)
    if len(beyond):
        first = beyond[0]
        name = CHROMOSOMES[events.chromosome[first]]
        came, end = f"{events.position[first]:,}", f"{ends[first]:,}"
        what = f"has the position {came} on chromosome {name}, which ends at {end} in {build}"
        raise DataError(what, file=path, mend="name the right build in the option 'build'")


def _build(path: Path, frame: pd.DataFrame) -> Build | None:
    if "build" not in frame:
        return None
    stated = {name: build_of(name) for name in set(frame["build"]) if name}
    builds = {build for build in stated.values() if build is not None}
    if len(builds) > 1:
        raise DataError(f"mixes the builds {', '.join(sorted(stated))}", file=path, mend="give one build per file")
    return builds.pop() if builds else None


def _filled(path: Path, frame: pd.DataFrame, names: Sequence[str]) -> None:
    for name in names:
        empty = np.flatnonzero((frame[name].str.strip() == "").to_numpy())
        if len(empty):
            what = f"line {frame.index[empty[0]]} has no {name} ({len(empty)} such lines)"
            raise DataError(what, file=path, mend="complete those lines or drop them")


def _header(path: Path) -> tuple[list[str], int]:
    """Column names, and the number of lines of remarks before them."""
    with _damage_named(path), path.open("rb") as raw:
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if path.suffix.lower() == ".gz" else raw
        for skipped, line in enumerate(stream):
            if not line.startswith(b"#"):
                return line.decode("utf-8").rstrip("\r\n").split("\t"), skipped
    raise DataError("has no rows", file=path, mend="check that it was written completely")


def _cells(path: Path, columns: dict[str, str], skipped: int) -> pd.DataFrame:
    """The columns as text under our names; the index holds the line of each row in the file."""
    with _damage_named(path):
        frame = pd.read_csv(
            path,
            sep="\t",
            skiprows=skipped,
            usecols=list(columns.values()),
            dtype=str,
            quoting=3,
            keep_default_na=False,
            na_values=[],
            encoding="utf-8",
            compression="gzip" if path.suffix.lower() == ".gz" else None,
            skip_blank_lines=False,
        )
    if not len(frame):
        raise DataError("has no rows", file=path, mend="give at least one mutation")
    frame = frame.rename(columns={word: name for name, word in columns.items()})
    frame.index = pd.RangeIndex(skipped + 2, skipped + 2 + len(frame))
    # A line that ends early has no cells there at all.
    frame = frame.fillna("")
    return frame[(frame != "").any(axis=1)]


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turns what pandas, gzip and the decoder raise into a sentence that names the file."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"is not a whole gzip file ({error})", file=path, mend="copy or compress it again") from None
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8 text ({error.reason})", file=path, mend="save it as UTF-8") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"is no tab-separated table ({reason})", file=path, mend="write it again") from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", file=path) from None


def _find(header: Sequence[str], words: Sequence[str]) -> str | None:
    return next((word for word in words if word in header), None)


def _optional(header: Sequence[str]) -> dict[str, str]:
    found = {name: _find(header, words) for name, words in OPTIONAL.items()}
    return {name: word for name, word in found.items() if word is not None}


def _needed(
    path: Path, header: Sequence[str], found: dict[str, str | None], wanted: dict[str, tuple[str, ...]]
) -> dict[str, str]:
    missing = [words[0] for name, words in wanted.items() if found[name] is None]
    if missing:
        shown = [name[:40] for name in header[:20]]
        what = f"has no column '{missing[0]}'; {suggest(missing[0], shown)}"[:300]
        mend = "give a MAF (Hugo_Symbol, Chromosome, ...) or COSMIC's GENE_SYMBOL, MUTATION_CDS, ..."
        raise DataError(what, file=path, mend=mend)
    return {name: word for name, word in found.items() if word is not None}
