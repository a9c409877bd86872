"""Files of a folder, of a zip archive, or of both: one list of relative names, read in place."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kontrast.errors import DataError

_HIDDEN = ("__MACOSX", ".")
_LARGEST = 1 << 28
"""Bytes of one file in an archive; a larger one is no image of a surface but a trap."""


@dataclass(frozen=True, order=True)
class StoredFile:
    """A file on disk, or a member of a zip archive; nothing is unpacked to disk.

    Attributes:
        path: the file, or the archive.
        member: name inside the archive, or None.
    """

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}/{self.member}"

    @property
    def name(self) -> str:
        """The last part of its name."""
        return self.path.name if self.member is None else PurePosixPath(self.member).name


def contents(files: Sequence[StoredFile]) -> Iterator[bytes]:
    """Bytes of each file, in order; an archive is opened once for a run of its members.

    Raises:
        DataError: for a file that is missing or cannot be read, or a damaged archive.
    """
    archive: zipfile.ZipFile | None = None
    opened: Path | None = None
    try:
        for file in files:
            if file.member is None:
                yield _from_disk(file.path)
                continue
            if opened != file.path:
                if archive is not None:
                    archive.close()
                archive, opened = _open(file.path), file.path
            assert archive is not None
            yield _from_archive(archive, file)
    finally:
        if archive is not None:
            archive.close()


def list_files(path: Path) -> dict[str, StoredFile]:
    """All files below a folder or in an archive, by name relative to it, in sorted order.

    A zip archive in a folder stands for the folder of its name: the members of ``tile.zip`` are ``tile/...``, whether
    or not they say so themselves. Where the same file is there unpacked, that one is taken. Hidden files are left out.

    Raises:
        DataError: if the path does not exist, holds no file, or an archive is damaged.
    """
    if not path.exists():
        raise DataError("no such file or folder", file=path, mend="check the path")
    found: dict[str, StoredFile] = {}
    if path.is_file():
        found = _members(path, folder=None)
    else:
        packed: dict[str, StoredFile] = {}
        for file in sorted(path.rglob("*")):
            name = file.relative_to(path).as_posix()
            if _hidden(name) or not file.is_file():
                continue
            if file.suffix.lower() == ".zip":
                packed |= _members(file, folder=PurePosixPath(name).with_suffix("").as_posix())
            else:
                found[name] = StoredFile(file)
        found = packed | found
    if not found:
        raise DataError("holds no files", file=path, mend="give a folder of images")
    return dict(sorted(found.items()))


def _hidden(name: str) -> bool:
    return any(part.startswith(_HIDDEN) for part in PurePosixPath(name).parts)


def _members(path: Path, folder: str | None) -> dict[str, StoredFile]:
    with _open(path) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir() and not _hidden(info.filename)]
    if folder is None:
        return {name: StoredFile(path, name) for name in names}
    last = PurePosixPath(folder).name
    inside = all(PurePosixPath(name).parts[0] == last for name in names)
    base = PurePosixPath(folder).parent if inside else PurePosixPath(folder)
    return {(base / name).as_posix(): StoredFile(path, name) for name in names}


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise DataError("no such file", file=path, mend="check the path") from None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"is not a whole zip archive ({error})", file=path, mend="copy it again") from None


def _from_disk(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError("no such image file", file=path, mend="check the path") from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=path) from None


def _from_archive(archive: zipfile.ZipFile, file: StoredFile) -> bytes:
    assert file.member is not None
    try:
        info = archive.getinfo(file.member)
        if info.file_size > _LARGEST:
            raise DataError(f"has {info.file_size:,} bytes unpacked, {_LARGEST:,} are allowed", file=str(file))
        return archive.read(info)
    except KeyError:
        raise DataError("is not in the archive", file=str(file), mend="check the name") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError) as error:
        raise DataError(f"is damaged in its archive ({error})", file=str(file), mend="copy the archive again") from None
