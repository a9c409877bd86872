"""From a path to utterances, whatever the layout."""

from __future__ import annotations

from pathlib import Path

from kontrast.data.utterances.csd import read_csd
from kontrast.data.utterances.pickles import read_pickled_utterances
from kontrast.data.utterances.tables import REACH, TABLE, is_table, read_table_of_utterances
from kontrast.data.utterances.utterances import Utterances
from kontrast.errors import DataError

FORMATS = (
    "folder with utterances.jsonl(.gz) (tokens or text, and optionally id, video, head, label, split, start, end) and "
    "features.npz (text_word, text_sentence, audio, visual, with offsets); the table alone is enough, also as CSV",
    "MMSA pickles (aligned_50.pkl, unaligned_50.pkl) and MISA pickles (train.pkl, dev.pkl, test.pkl), read without "
    "running anything in them",
    "folder of .csd files of the CMU multimodal SDK",
)


def read_utterances(path: str | Path, *, reach: int = REACH) -> Utterances:
    """Utterances from a file or folder in one of `FORMATS`.

    Args:
        path: the file or folder.
        reach: neighbours before and after that surround an utterance with a single vector of a modality.

    Raises:
        DataError: naming file, field, what came and the mend.
    """
    path = Path(path)
    if path.is_dir():
        for name in (TABLE, f"{TABLE}.gz", "utterances.csv", "utterances.parquet"):
            if (path / name).is_file():
                return read_table_of_utterances(path / name, reach=reach)
        if any(path.glob("*.csd")):
            return read_csd(path)
        if any(path.glob("*.pkl")):
            return read_pickled_utterances(path)
        tables = [file for file in sorted(path.iterdir()) if file.is_file() and is_table(file)]
        if len(tables) == 1:
            return read_table_of_utterances(tables[0], reach=reach)
        came = ", ".join(sorted(file.name for file in path.iterdir())[:5]) or "nothing"
        raise DataError(f"holds {came}", file=path, mend=f"give a folder with {TABLE}, .pkl or .csd files")
    if not path.is_file():
        raise DataError("no such file or folder", file=path, mend=f"give a folder with {TABLE}, or one file")
    if path.suffix in (".pkl", ".pickle"):
        return read_pickled_utterances(path)
    if path.suffix == ".csd":
        return read_csd(path)
    if path.suffix == ".npz":
        tables = [file for file in sorted(path.parent.iterdir()) if is_table(file)]
        if len(tables) == 1:
            return read_table_of_utterances(tables[0], reach=reach)
        raise DataError("is not a table", file=path, mend=f"give the folder, or the {TABLE} beside it")
    return read_table_of_utterances(path, reach=reach)
