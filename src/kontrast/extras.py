"""Optional dependencies, imported when first used."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from kontrast.errors import MissingExtraError


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Imports an optional module.

    Args:
        module: dotted name, such as ``"faiss"``.
        extra: the extra of kontrast that installs it.
        purpose: what it is needed for, as the end of "... is needed ...".

    Raises:
        MissingExtraError: if it is not installed; the message holds the command that installs it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        if error.name is not None and not module.startswith(error.name.split(".")[0]):
            raise
        raise MissingExtraError(
            f"'{module.split('.')[0]}' is needed {purpose}; install it with: pip install 'kontrast[{extra}]'."
        ) from None


def installed(module: str) -> bool:
    """Whether an optional module can be imported; imports nothing."""
    return find_spec(module) is not None
