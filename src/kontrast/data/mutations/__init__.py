"""Somatic mutations: files of the field to counts by gene and by chromosome."""

from kontrast.data.mutations.counts import CLASSES, Events, MutationCounts, count_table
from kontrast.data.mutations.read import read_mutations
from kontrast.data.mutations.substitutions import (
    CHROMOSOMES,
    PYRIMIDINE,
    SUBSTITUTIONS,
    Build,
    Strand,
    build_of,
    chromosome_lengths,
    collapse_matrix,
    other_strand,
)

__all__ = [
    "CHROMOSOMES",
    "CLASSES",
    "PYRIMIDINE",
    "SUBSTITUTIONS",
    "Build",
    "Events",
    "MutationCounts",
    "Strand",
    "build_of",
    "chromosome_lengths",
    "collapse_matrix",
    "count_table",
    "other_strand",
    "read_mutations",
]
