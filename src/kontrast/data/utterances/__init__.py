"""Utterances of spoken opinion with text, audio and visual sequences: readers, checks, surroundings."""

from kontrast.data.utterances.assembling import LIMIT, make_utterances
from kontrast.data.utterances.read import FORMATS, read_utterances
from kontrast.data.utterances.tables import FEATURES, REACH, TABLE, write_utterances
from kontrast.data.utterances.utterances import MODALITIES, Stream, Utterances, surroundings

__all__ = [
    "FEATURES",
    "FORMATS",
    "LIMIT",
    "MODALITIES",
    "REACH",
    "TABLE",
    "Stream",
    "Utterances",
    "make_utterances",
    "read_utterances",
    "surroundings",
    "write_utterances",
]
