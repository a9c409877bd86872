"""The data sets that kontrast knows by name, and where they are on this machine.

A folder under ``$KONTRAST_DATA`` comes first, then the cache (``$KONTRAST_CACHE``, default ``~/.cache/kontrast``).
Nothing is downloaded or built but by `fetch`.
"""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from kontrast import progress
from kontrast.errors import DataError, suggest
from kontrast.files import replacing

_BLOCK = 1 << 20
_TIMEOUT_S = 60


class RemoteFile(BaseModel):
    """A file to download.

    Attributes:
        name: its name in the data set's folder.
        url: where it is.
        sha256: of its bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    url: str
    sha256: str


class Entry(BaseModel):
    """One data set.

    Attributes:
        name: of the data set and of its folder.
        title: one line.
        about: what the files hold.
        source: "download", "local" (a folder the user provides) or "built" (made from this machine).
        files: what `fetch` downloads.
        homepage: where the original comes from.
        licence: the terms, as the origin states them.
        citation: what to cite.
        systems: which systems it serves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    about: str
    source: Literal["download", "local", "built"]
    files: tuple[RemoteFile, ...] = ()
    homepage: str | None = None
    licence: str
    citation: str
    systems: tuple[str, ...] = ()


@cache
def _catalogue() -> dict[str, Entry]:
    text = resources.files("kontrast.data").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    return {name: Entry(name=name, **facts) for name, facts in sorted(yaml.safe_load(text).items())}


def entries() -> list[Entry]:
    """Every known data set, by name."""
    return list(_catalogue().values())


def entry(name: str) -> Entry:
    """The data set of this name.

    Raises:
        DataError: if there is none; the message names the nearest and all of them.
    """
    found = _catalogue().get(name)
    if found is None:
        raise DataError(f"unknown data set '{name}'; {suggest(name, _catalogue())}")
    return found


def cache_folder() -> Path:
    """Where downloads, built data and decoded models are kept: ``$KONTRAST_CACHE`` or ``~/.cache/kontrast``."""
    stated = os.environ.get("KONTRAST_CACHE")
    return Path(stated).expanduser() if stated else Path.home() / ".cache" / "kontrast"


def is_here(name: str) -> bool:
    """Whether the data set is on this machine.

    Raises:
        DataError: for an unknown name.
    """
    return _find(entry(name)) is not None


def path(name: str) -> Path:
    """The folder of a data set on this machine; never downloads.

    Raises:
        DataError: for an unknown name, or if it is not here; the message says how to get it.
    """
    known = entry(name)
    found = _find(known)
    if found is None:
        raise DataError(f"the data set '{name}' is not on this machine", mend=_how_to_get(known))
    return found


def fetch(name: str) -> Path:
    """Downloads or builds a data set unless it is here; returns its folder.

    Raises:
        DataError: for an unknown name, a set that cannot be fetched, no network, or bytes with another sha256.
    """
    known = entry(name)
    found = _find(known)
    if found is not None:
        return found
    folder = cache_folder() / "data" / name
    if known.source == "built":
        from kontrast.data.pydocs import build_pydocs

        with replacing(folder) as temporary:
            temporary.mkdir()
            build_pydocs(temporary / "pydocs.parquet")
        return folder
    if known.source == "local" or not known.files:
        raise DataError(f"the data set '{name}' cannot be downloaded", mend=_how_to_get(known))
    with replacing(folder) as temporary:
        temporary.mkdir()
        for file in known.files:
            download(file, temporary / file.name)
    return folder


def download(file: RemoteFile, target: Path) -> Path:
    """Downloads one file and checks it; `target` appears only if the sha256 is right.

    Raises:
        DataError: if the server cannot be reached, refuses, stops early, or sends other bytes.
    """
    digest = hashlib.sha256()
    with replacing(target) as temporary:
        try:
            with urllib.request.urlopen(file.url, timeout=_TIMEOUT_S) as answer, temporary.open("wb") as stream:
                size = int(answer.headers.get("Content-Length") or 0) or None
                with progress.task(f"downloading {file.name}", size) as work:
                    while block := answer.read(_BLOCK):
                        digest.update(block)
                        stream.write(block)
                        work.advance(len(block))
        except urllib.error.HTTPError as error:
            what = f"{file.url} answers {error.code} ({error.reason})"
            raise DataError(what, mend="it may have moved; look at the data set's homepage") from None
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", error)
            mend = f"check the network, or put the file '{file.name}' under $KONTRAST_DATA yourself"
            raise DataError(f"{file.url} cannot be reached ({reason})", mend=mend) from None
        if size is not None and temporary.stat().st_size != size:
            raise DataError(
                f"{file.url} stopped after {temporary.stat().st_size} of {size} bytes", mend="fetch it again"
            )
        if digest.hexdigest() != file.sha256:
            what = f"{file.url} sent bytes with sha256 {digest.hexdigest()}, not {file.sha256}"
            raise DataError(what, mend="fetch it again; if it stays so, the file has changed at its source")
    return target


def _find(known: Entry) -> Path | None:
    stated = os.environ.get("KONTRAST_DATA")
    places = [Path(stated).expanduser() / known.name] if stated else []
    return next((place for place in [*places, cache_folder() / "data" / known.name] if place.is_dir()), None)


def _how_to_get(known: Entry) -> str:
    if known.source == "local":
        where = f" (the original is at {known.homepage})" if known.homepage else ""
        return f"put the folder '{known.name}' into a folder and set KONTRAST_DATA to that folder{where}"
    return f"run: kontrast data fetch {known.name}"
