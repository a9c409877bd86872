"""VCF files: single-nucleotide variants with the gene that the annotation names."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pandas as pd

from kontrast.data.mutations.counts import Events
from kontrast.data.mutations.substitutions import Build, allele_codes, build_of, chromosome_codes
from kontrast.errors import DataError

_FIXED = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO")
_PLAIN = ("GENE", "Gene", "SYMBOL", "Gene.refGene", "Hugo_Symbol")
_NORMAL = re.compile(r"normal|blood|germline", re.IGNORECASE)


def read_vcf(path: Path) -> tuple[Events, Build | None]:
    """The substitutions of one VCF file (.vcf, .vcf.gz), and its build where the header states one.

    The gene comes from INFO: GENE or SYMBOL, SnpEff's ANN, or VEP's CSQ by the header's format. A file with one tumour
    column, or none, is one patient named as the file; with several columns each is a patient who has the variants that
    its genotype holds. Records whose FILTER names a reason are left out.

    Raises:
        DataError: if there is no header line, or a record has too few columns or no whole position.
    """
    samples: list[str] = []
    csq: int | None = None
    build: Build | None = None
    rows: list[tuple[str, str, str, str, str, str]] = []
    own = re.sub(r"\.vcf(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    header: list[str] | None = None
    for number, line in _lines(path):
        if line.startswith("##"):
            csq = _symbol_place(line) if line.startswith("##INFO=<ID=CSQ") else csq
            build = build or _stated(line)
            continue
        if line.startswith("#"):
            header = line.split("\t")
            if tuple(header[:8]) != _FIXED:
                break
            samples = [name for name in header[9:] if not _NORMAL.search(name)]
            continue
        if header is None:
            break
        cells = line.split("\t")
        if len(cells) < max(8, len(header)) or not cells[1].isdecimal():
            what = f"line {number} has {len(cells)} cells and the position '{cells[1][:20] if len(cells) > 1 else ''}'"
            raise DataError(what, file=path, mend="give whole VCF records")
        if cells[6] not in ("PASS", ".", ""):
            continue
        gene = _gene(cells[7], csq)
        for allele, alternative in enumerate(cells[4].split(","), start=1):
            for patient in _carriers(header, cells, samples, allele, own):
                rows.append((patient, gene, cells[0], cells[1], cells[3], alternative))
    if header is None or tuple(header[:8]) != _FIXED:
        raise DataError("has no header line '#CHROM POS ID REF ALT ...'", file=path, mend="give a whole VCF file")
    frame = pd.DataFrame(rows, columns=["sample", "gene", "chromosome", "position", "reference", "alternative"])
    return (
        Events(
            frame["sample"].to_numpy(dtype=object),
            None,
            frame["gene"].to_numpy(dtype=object),
            chromosome_codes(frame["chromosome"]),
            np.array(frame["position"], dtype=np.int64),
            allele_codes(frame["reference"], frame["alternative"]),
        ),
        build,
    )


def _carriers(header: list[str], cells: list[str], samples: list[str], allele: int, own: str) -> list[str]:
    """The patients of a record: the file's own, or those whose genotype holds the allele."""
    if len(samples) < 2 or not cells[8].startswith("GT"):
        return [own]
    genotypes = dict(zip(header[9:], cells[9:]))
    return [name for name in samples if str(allele) in re.split(r"[/|]", genotypes[name].split(":")[0])]


def _gene(info: str, csq: int | None) -> str:
    fields = dict(part.split("=", 1) for part in info.split(";") if "=" in part)
    for name in _PLAIN:
        if fields.get(name):
            return re.split(r"[,;&|]", fields[name])[0]
    for name, place in (("ANN", 3), ("CSQ", csq)):
        if name in fields and place is not None:
            words = fields[name].split(",")[0].split("|")
            if len(words) > place:
                return words[place]
    return ""


def _symbol_place(line: str) -> int | None:
    found = re.search(r"Format: ?([^\"]+)", line)
    names = found.group(1).strip().split("|") if found else []
    return names.index("SYMBOL") if "SYMBOL" in names else None


def _stated(line: str) -> Build | None:
    found = re.match(r"##(?:reference|assembly)=(.*)", line) or re.search(r"assembly=([^,>]+)", line)
    words = re.split(r"[/\\:.,\s]+", found.group(1)) if found else []
    return next((build for word in words if (build := build_of(word)) is not None), None)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open("rb") as raw:
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if path.suffix.lower() == ".gz" else raw
            for number, line in enumerate(stream, start=1):
                text = line.decode("utf-8").rstrip("\r\n")
                if text:
                    yield number, text
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"is not a whole gzip file ({error})", file=path, mend="copy or compress it again") from None
    except UnicodeDecodeError as error:
        raise DataError(f"is not UTF-8 text ({error.reason})", file=path, mend="save it as UTF-8") from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error})", file=path) from None
