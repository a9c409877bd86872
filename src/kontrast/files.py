"""Writing that never leaves half a file, and content hashes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kontrast.errors import DataError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OS_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is renamed to `path`, on failure it is removed.

    Works for a file and for a folder: create either at the temporary path. An existing `path` stays whole until the
    rename (a folder is moved aside first, for the instant that the file system needs).
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    except OSError as error:
        raise DataError(
            f"cannot be written ({error.strerror})", file=path, mend="choose a folder you may write to"
        ) from None
    temporary = holder / path.name
    try:
        yield temporary
        if path.is_dir() and not path.is_symlink():
            aside = holder / "old"
            os.rename(path, aside)
            os.rename(temporary, path)
        else:
            os.replace(temporary, path)
    except Exception as error:
        reason = _refusal(error, holder)
        if reason is None:
            raise
        raise DataError(f"cannot be written ({reason[0]})", file=path, mend=reason[1]) from None
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def _refusal(error: Exception, holder: Path) -> tuple[str, str] | None:
    """Why the file system would not take a file below `holder`, and the mend; None for any other error.

    Libraries that write for themselves (safetensors) raise errors of their own, which say so in words alone.
    """
    number = error.errno if isinstance(error, OSError) else None
    if number is None and not isinstance(error, OSError):
        said = _OS_ERROR.search(str(error))
        number = int(said[1]) if said else None
    if number in _FULL:
        return os.strerror(number), "free some space, then give the same command again"
    if isinstance(error, OSError) and error.filename is not None and str(error.filename).startswith(str(holder)):
        return error.strerror or str(error), "check the disk, or choose a folder you may write to"
    return None


def write_text(path: str | Path, text: str) -> Path:
    """Writes UTF-8 text under a temporary name, then renames."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def write_json(path: str | Path, value: Any) -> Path:
    """Writes JSON (indented, sorted keys, NaN as null) under a temporary name, then renames."""
    return write_text(path, json.dumps(_finite(value), indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and value != value:
        return None
    return value


def read_json(path: str | Path) -> Any:
    """Reads JSON; a damaged file gives a `DataError` that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError("no such file", file=path) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"is not valid JSON ({error})", file=path) from None


def content_hash(path: str | Path) -> str:
    """sha256 of a file's bytes, or of a folder's relative names and bytes in sorted order."""
    path = Path(path)
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
