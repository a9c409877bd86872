"""Pickles of numpy arrays and plain values, read by an interpreter to which a pickle can do no harm.

A pickle is a program: it may name any function and have it called. Here every name stands for an inert function of ours
that only stores bytes, shape and type of an array; any other name is refused. Not even numpy's own classes are used,
since an array that is restored from a forged state can point anywhere in memory.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kontrast.errors import DataError

_NUMBERS = re.compile(r"[<>|=]?(?:[biuf][1248]|f2|c8|c16)")
_TEXTS = re.compile(r"[<>|=]?[SU]\d{1,5}")
_MEND = "copy it again from where it was published, or convert it to .npz"


class _Refused(Exception):
    """A pickle asks for what it may not have."""


class _Inert:
    """A name that a pickle may call. It cannot be changed from within a pickle."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("a function to be changed")


class _Dtype:
    """Stands for numpy.dtype: a kind, a size and an order of bytes."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or not isinstance(state[1], str):
            raise _Refused("a forged type of numbers")
        self.order = state[1]

    @property
    def is_object(self) -> bool:
        return self.code in ("O", "O8", "|O")

    def dtype(self) -> np.dtype[Any]:
        code = self.code if self.code[:1] in "<>|=" else self.order + self.code
        if not (_NUMBERS.fullmatch(code) or _TEXTS.fullmatch(code)):
            raise _Refused(f"an array of '{self.code[:40]}'")
        return np.dtype(code)


class _Array:
    """Stands for numpy.ndarray until the whole pickle is read."""

    __slots__ = ("items", "shape", "values")

    def __init__(self) -> None:
        self.values: npt.NDArray[Any] | None = None
        self.items: list[Any] | None = None
        self.shape: tuple[int, ...] = ()

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused("a forged array")
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype):
            raise _Refused("an array without a type")
        if dtype.is_object:
            if not isinstance(raw, list):
                raise _Refused("an array of objects from bytes")
            self.items, self.shape = raw, _checked_shape(shape, len(raw))
            return
        self.values = _from_bytes(raw, dtype, shape, "F" if fortran else "C")


def _checked_shape(shape: Any, count: int) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise _Refused("an array with a forged shape")
    if prod(shape) != count:
        raise _Refused(f"an array of shape {shape} with {count} entries")
    return shape


def _from_bytes(raw: Any, dtype: Any, shape: Any, order: Any) -> npt.NDArray[Any]:
    data = raw.encode("latin1") if isinstance(raw, str) else raw
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray) or order not in ("C", "F"):
        raise _Refused("an array of objects")
    values = np.frombuffer(data, dtype.dtype())
    return values.reshape(_checked_shape(shape, len(values)), order=order)


def _scalar(dtype: Any, raw: Any = None) -> Any:
    if not isinstance(dtype, _Dtype):
        raise _Refused("a number without a type")
    return _from_bytes(raw, dtype, (1,), "C")[0].item()


def _encode(text: Any, *_: Any) -> bytes:
    if not isinstance(text, str):
        raise _Refused("bytes of what is no text")
    return text.encode("latin1")


def _no_bytes(*args: Any) -> bytes:
    """Old protocols write an empty value by calling its type."""
    if args:
        raise _Refused("bytes of what is no text")
    return b""


_ALLOWED: dict[tuple[str, str], _Inert] = {("_codecs", "encode"): _Inert(_encode)}
_ALLOWED |= {(module, "bytes"): _Inert(_no_bytes) for module in ("builtins", "__builtin__")}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED |= {
        (f"{_core}.multiarray", "_reconstruct"): _Inert(lambda *_: _Array()),
        (f"{_core}.multiarray", "scalar"): _Inert(_scalar),
        (f"{_core}.numeric", "_frombuffer"): _Inert(_from_bytes),
    }
_ALLOWED |= {("numpy", "dtype"): _Inert(_Dtype), ("numpy", "ndarray"): _Inert(lambda *_: _Array())}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module, name))
        if found is None:
            raise _Refused(f"'{module[:60]}.{name[:60]}'")
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("a reference to something outside")


def read_pickle(path: str | Path) -> Any:
    """What a pickle of plain values holds: numbers, texts, lists, tuples, dictionaries and numpy arrays of these.

    Arrays of objects come as numpy arrays of dtype object. Pickles of Python 2 are read, too.

    Args:
        path: the file.

    Raises:
        DataError: if the file is missing or damaged, or names anything else; nothing of it has been run then.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            return _plain(_Unpickler(stream, encoding="latin1").load(), {}, 0)
    except FileNotFoundError:
        raise DataError("no such file", file=path) from None
    except _Refused as error:
        what = f"is a pickle that asks for {error}, which may run code or is not understood"
        raise DataError(what, file=path, mend="convert it to .npz and .jsonl") from None
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        ArithmeticError,
    ) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"is not a whole pickle of arrays ({reason})", file=path, mend=_MEND) from None
    except (UnicodeError, RecursionError, MemoryError, OSError, ImportError) as error:
        raise DataError(f"cannot be read ({type(error).__name__})", file=path, mend=_MEND) from None


def _plain(value: Any, done: dict[int, Any], depth: int) -> Any:
    """The value with stand-ins replaced by arrays. Shared parts are visited once; a part cannot hold itself."""
    if isinstance(value, _Inert | _Dtype):
        raise _Refused("a function as a value")
    if not isinstance(value, dict | list | tuple | set | frozenset | _Array):
        return value
    if depth > 50:
        raise _Refused("values nested more than 50 deep")
    if id(value) in done:
        return done[id(value)][1]
    made: Any
    if isinstance(value, _Array):
        if value.items is not None:
            made = np.empty(len(value.items), dtype=object)
            made[:] = [_plain(item, done, depth + 1) for item in value.items]
            made = made.reshape(value.shape)
        elif value.values is not None:
            made = value.values
        else:
            raise _Refused("an array without content")
    elif isinstance(value, dict):
        made = {_plain(key, done, depth + 1): _plain(item, done, depth + 1) for key, item in value.items()}
    else:
        made = type(value)(_plain(item, done, depth + 1) for item in value)
    # The original is kept as well, so that its id stays its own.
    done[id(value)] = (value, made)
    return made
