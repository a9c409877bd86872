"""Names of substitutions and chromosomes, strands, and lengths of chromosomes."""

from __future__ import annotations

import re
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

Build = Literal["hg19", "hg38"]
Strand = Literal["genomic", "coding"]

SUBSTITUTIONS = ("T>C", "T>G", "T>A", "C>T", "C>G", "C>A", "G>T", "G>C", "G>A", "A>T", "A>C", "A>G")
"""The 12 classes of one strand, in the order of the official MS-ConTab tables."""

PYRIMIDINE = ("C>A", "C>G", "C>T", "T>A", "T>C", "T>G")
"""The 6 classes that are left when the strand is ignored: the reference base is written as C or T."""

CHROMOSOMES = (*map(str, range(1, 23)), "X", "Y")

_PARTNER = str.maketrans("ACGT", "TGCA")
_HG19 = (
    249250621, 243199373, 198022430, 191154276, 180915260, 171115067, 159138663, 146364022, 141213431, 135534747,
    135006516, 133851895, 115169878, 107349540, 102531392, 90354753, 81195210, 78077248, 59128983, 63025520, 48129895,
    51304566, 155270560, 59373566,
)  # fmt: skip
_HG38 = (
    248956422, 242193529, 198295559, 190214555, 181538259, 170805979, 159345973, 145138636, 138394717, 133797422,
    135086622, 133275309, 114364328, 107043718, 101991189, 90338345, 83257441, 80373285, 58617616, 64444167, 46709983,
    50818468, 156040895, 57227415,
)  # fmt: skip
_BUILDS: dict[str, Build] = {
    "hg19": "hg19", "grch37": "hg19", "37": "hg19", "b37": "hg19", "hs37d5": "hg19",
    "hg38": "hg38", "grch38": "hg38", "38": "hg38",
}  # fmt: skip


def chromosome_lengths(build: Build) -> npt.NDArray[np.int64]:
    """(24,) base pairs of the chromosomes 1 to 22, X and Y."""
    return np.array(_HG19 if build == "hg19" else _HG38, dtype=np.int64)


def build_of(name: str) -> Build | None:
    """The build that a file calls so ("GRCh37", "hg38", "37.1"), or None."""
    word = re.sub(r"\.(p?\d+)$", "", name.strip().lower())
    return _BUILDS.get(word)


def other_strand(substitution: str) -> str:
    """The same change read on the opposite strand: "G>T" for "C>A"."""
    return substitution.translate(_PARTNER)


def collapse_matrix() -> npt.NDArray[np.float64]:
    """(12, 6), 1 where a class of `SUBSTITUTIONS` belongs to one of `PYRIMIDINE`."""
    table = np.zeros((len(SUBSTITUTIONS), len(PYRIMIDINE)))
    for row, name in enumerate(SUBSTITUTIONS):
        pyrimidine = name if name in PYRIMIDINE else other_strand(name)
        table[row, PYRIMIDINE.index(pyrimidine)] = 1
    return table


def chromosome_codes(names: pd.Series) -> npt.NDArray[np.int64]:
    """Places in `CHROMOSOMES`, -1 for any other sequence (mitochondrial, unplaced); "chr" and 23, 24 are understood."""
    codes = {name: place for place, name in enumerate(CHROMOSOMES)} | {"23": 22, "24": 23}
    uniques = {name: codes.get(re.sub(r"^CHR(OMOSOME)?_?", "", str(name).strip().upper()), -1) for name in set(names)}
    return np.array([uniques[name] for name in names], dtype=np.int64)


def substitution_codes(names: pd.Series) -> npt.NDArray[np.int64]:
    """Places in `SUBSTITUTIONS`, -1 for anything else; "C>T" and "C->T" are understood."""
    codes = {name: place for place, name in enumerate(SUBSTITUTIONS)}
    uniques = {name: codes.get(str(name).strip().upper().replace("->", ">"), -1) for name in set(names)}
    return np.array([uniques[name] for name in names], dtype=np.int64)


def allele_codes(reference: pd.Series, alternative: pd.Series) -> npt.NDArray[np.int64]:
    """Places in `SUBSTITUTIONS`, -1 where the two alleles are no change of one base."""
    joined = reference.astype(str).str.strip().str.upper() + ">" + alternative.astype(str).str.strip().str.upper()
    return substitution_codes(joined)
