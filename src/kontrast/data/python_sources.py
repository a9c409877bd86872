"""Public functions and classes of installed packages, read from their sources without running them.

A package's files are parsed, not imported. Re-exports are followed (``from ._impl import sort`` in
``numpy/__init__.py`` makes ``numpy.sort``), and each definition is listed once, under its shortest public path.
Functions written in C have no source; `compiled_definitions` imports a fixed, short list of well-known modules for
them.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import types
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SKIPPED_PARTS = frozenset({
    "test", "tests", "testing", "testing_utils", "conftest", "benchmarks", "examples", "vendor", "vendored",
    "externals", "idlelib", "lib2to3", "turtledemo", "turtle", "tkinter", "ensurepip", "distutils", "pydoc_data",
    "encodings",
    "msilib", "antigravity", "this", "setup", "ntpath", "__main__",
})  # fmt: skip
# Hundreds of near-copies of one text each, which would drown the rest.
_SKIPPED_PREFIXES = ("transformers.models.", "torch.ao.", "torch.onnx.", "torch.utils.hipify.")
# Without an underscore, yet not what a user calls; what a public module re-exports from them is listed there.
_INSIDES = (
    "lightning.fabric.", "lightning.pytorch.loops.", "lightning.pytorch.trainer.connectors.", "numpy.f2py.",
    "lightning.pytorch.utilities.", "pandas.core.", "pandas.io.", "pandas.compat.", "sklearn.utils.estimator_checks.",
    "torch.distributed.", "torch.fx.", "torch.utils.", "torch.package.", "torch.jit.", "torch.backends.",
    "transformers.cli.", "transformers.integrations.", "transformers.quantizers.", "transformers.generation.",
    "transformers.utils.",
)  # fmt: skip
_RENAMED = {"posixpath": "os.path", "genericpath": "os.path"}
_COMPILED = {
    "numpy": ("numpy", "numpy.ndarray", "numpy.random.Generator", "numpy.fft", "numpy.linalg"),
    "scipy": ("scipy.special",),
    "torch": ("torch", "torch.Tensor", "torch.nn.functional", "torch.linalg", "torch.fft", "torch.special"),
    "pyarrow": ("pyarrow", "pyarrow.compute", "pyarrow.parquet", "pyarrow.csv", "pyarrow.dataset"),
    "stdlib": (
        "builtins", "os", "collections", "functools", "itertools", "operator", "math", "cmath", "datetime", "socket",
        "io", "struct", "time", "bisect", "heapq", "decimal", "csv", "sqlite3", "ssl", "threading", "weakref", "signal",
        "select", "zlib", "lzma", "bz2", "array", "binascii", "gc", "sys", "mmap", "unicodedata", "hashlib", "random",
        "fcntl", "resource", "pwd", "grp", "marshal", "errno", "contextvars", "re", "json", "pickle", "string",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Definition:
    """A documented function, class or method.

    Attributes:
        path: shortest public dotted name, such as "numpy.sort".
        signature: its parameters with defaults and without annotations, "(a, axis=-1)".
        doc: the cleaned docstring.
        module: the module that defines it.
    """

    path: str
    signature: str
    doc: str
    module: str


@dataclass
class _Class:
    """A class statement: its methods and the names of its bases."""

    node: ast.ClassDef
    methods: dict[str, ast.FunctionDef | ast.AsyncFunctionDef]
    bases: list[str]


@dataclass
class _Module:
    """What a file binds at its top level; `exported` is its ``__all__`` unless that is absent or `computed`."""

    functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = field(default_factory=dict)
    classes: dict[str, _Class] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    exported: list[str] | None = None
    computed: bool = False


def source_definitions(package: str) -> list[Definition]:
    """Public definitions of an installed package ("stdlib" for the standard library); empty if it is not installed."""
    return _Sources(package).definitions()


def compiled_definitions(package: str) -> list[Definition]:
    """Documented C functions and classes in the well-known modules of a package, found by importing those."""
    found: dict[str, Definition] = {}
    for name in _COMPILED.get(package, ()):
        holder = _import(name)
        if holder is None:
            continue
        prefix = "" if name == "builtins" else f"{name}."
        for member, value in sorted(vars(holder).items()):
            if member.startswith("_") or inspect.ismodule(value):
                continue
            _add_compiled(found, f"{prefix}{member}", value, name)
            home = getattr(value, "__module__", None)
            if isinstance(value, type) and not _has_source(value) and home in (name, "builtins"):
                for inner, method in sorted(vars(value).items()):
                    if not inner.startswith("_"):
                        _add_compiled(found, f"{prefix}{member}.{inner}", method, name)
    return list(found.values())


def _import(name: str) -> Any:
    """A module, or a class in one."""
    try:
        return importlib.import_module(name)
    except ImportError:
        parent, _, last = name.rpartition(".")
        try:
            return getattr(importlib.import_module(parent), last, None) if parent else None
        except ImportError:
            return None


def _has_source(value: Any) -> bool:
    if isinstance(value, (types.FunctionType, types.MethodType, property, staticmethod, classmethod)):
        return True
    if isinstance(value, type):
        module = sys.modules.get(getattr(value, "__module__", ""))
        origin = getattr(module, "__file__", None)
        return bool(origin and str(origin).endswith(".py")) and "__dict__" in dir(value)
    return False


def _add_compiled(found: dict[str, Definition], path: str, value: Any, module: str) -> None:
    if _has_source(value) or not callable(value):
        return
    doc = inspect.getdoc(value)
    if not doc or doc == inspect.getdoc(type(value)):
        return
    try:
        signature = str(inspect.signature(value)).split(" -> ")[0]
    except (ValueError, TypeError):
        signature = _stated_signature(doc, path.rsplit(".", 1)[-1])
    signature = re.sub(r"^\(self(, /)?(, )?", "(", signature).replace("=<no value>", "=...")
    # Every NumPy ufunc has the same ten further options.
    signature = re.sub(r"(, /)?, out=None, \*, where=.*", ", out=None)", signature)
    found.setdefault(path, Definition(path, signature, doc, module))


def _stated_signature(doc: str, name: str) -> str:
    """The parameters that a C docstring states in its first lines, "(...)" if it does not."""
    for line in doc.splitlines()[:3]:
        start = line.find(f"{name}(")
        end = line.find(")", start)
        if start >= 0 and end > start:
            return line[start + len(name) : end + 1]
    return "(...)"


class _Sources:
    """The files of one package, parsed when first needed."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.files = dict(_files(package))
        self.parsed: dict[str, _Module | None] = {}

    def definitions(self) -> list[Definition]:
        best: dict[tuple[str, str], tuple[tuple[int, int, int, str], str, ast.AST]] = {}
        for module in sorted(self.files):
            if not _is_public(module) or (f"{module}.".startswith(_INSIDES) and module.count(".") > 1):
                continue
            for name, home, kept in self._public_names(module):
                self._offer(best, module, name, home, kept)
        found = []
        for (home, _), (_, path, node) in sorted(best.items()):
            doc = ast.get_docstring(node)  # type: ignore[arg-type]
            if doc:
                found.append(Definition(path, _signature(node), doc, _rename(home)))
        return found

    def _offer(
        self,
        best: dict[tuple[str, str], tuple[tuple[int, int, int, str], str, ast.AST]],
        module: str,
        name: str,
        home: str,
        kept: str,
    ) -> None:
        """Notes `module.name` as a path of the definition `kept` in `home`, and of its methods."""
        source = self._module(home)
        if source is None:
            return
        path = f"{_rename(module)}.{name}"

        def note(key: tuple[str, str], path: str, own: bool, node: ast.AST) -> None:
            rank = (path.count("."), 0 if own else 1, len(path), path)
            if key not in best or rank < best[key][0]:
                best[key] = (rank, path, node)

        if kept in source.functions:
            note((home, kept), path, True, source.functions[kept])
        elif kept in source.classes:
            note((home, kept), path, True, source.classes[kept].node)
            for owner_home, owner in self._lineage(home, kept):
                holder = self._module(owner_home)
                if holder is None:
                    continue
                for method, node in holder.classes[owner].methods.items():
                    own = (owner_home, owner) == (home, kept)
                    note((owner_home, f"{owner}.{method}"), f"{path}.{method}", own, node)

    def _public_names(self, module: str) -> Iterator[tuple[str, str, str]]:
        """(name, defining module, name there) of everything public in a module."""
        source = self._module(module)
        if source is None:
            return
        for name in [*source.functions, *source.classes]:
            if not name.startswith("_") and (source.exported is None or name in source.exported):
                yield name, module, name
        is_package = self.files[module].name == "__init__.py"
        names = set(source.imports) | {name for star in source.stars for name in self._star(star)}
        for name in sorted(names):
            if name.startswith("_") or not (is_package or name in (source.exported or ())):
                continue
            if source.exported is not None and name not in source.exported:
                continue
            target = self._resolve(module, name)
            if target is not None:
                yield name, *target

    def _resolve(self, module: str, name: str, depth: int = 0) -> tuple[str, str] | None:
        """The module that defines `module.name`, and its name there; None if it is not in this package."""
        source = self._module(module)
        if source is None or depth > 8:
            return None
        if name in source.functions or name in source.classes:
            return module, name
        if name in source.imports:
            origin, original = source.imports[name]
            return self._resolve(origin, original, depth + 1)
        for star in source.stars:
            if name in self._star(star):
                return self._resolve(star, name, depth + 1)
        return None

    def _star(self, module: str, depth: int = 0) -> set[str]:
        source = self._module(module)
        if source is None or depth > 4:
            return set()
        if source.exported is not None:
            return set(source.exported)
        names = {*source.functions, *source.classes, *source.imports}
        for star in source.stars:
            names |= self._star(star, depth + 1)
        return {name for name in names if not name.startswith("_")}

    def _lineage(self, home: str, name: str, depth: int = 0) -> Iterator[tuple[str, str]]:
        """The class and its bases within the package."""
        source = self._module(home)
        if source is None or name not in source.classes or depth > 5:
            return
        yield home, name
        for base in source.classes[name].bases:
            target = self._resolve(home, base)
            if target is not None and target != (home, name):
                yield from self._lineage(*target, depth + 1)

    def _module(self, name: str) -> _Module | None:
        if name not in self.parsed:
            path = self.files.get(name)
            self.parsed[name] = _parse(path, name) if path is not None else None
        return self.parsed[name]


def _files(package: str) -> Iterator[tuple[str, Path]]:
    """(dotted module name, file) of every source file, skipped folders apart."""
    if package == "stdlib":
        root = Path(sysconfig.get_paths()["stdlib"])
        tops = [root / name for name in sorted(sys.stdlib_module_names)]
        roots = [top for top in tops if top.is_dir()] + [top.with_suffix(".py") for top in tops]
    else:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            return
        root = Path(spec.submodule_search_locations[0]).parent
        roots = [root / package]
    for top in roots:
        if top.is_file() and top.stem not in _SKIPPED_PARTS:
            yield top.stem, top
        for path in sorted(top.rglob("*.py")) if top.is_dir() else ():
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if not _SKIPPED_PARTS.intersection(parts) and not f"{name}.".startswith(_SKIPPED_PREFIXES):
                yield name, path


def _parse(path: Path, name: str) -> _Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return None
    module = _Module()
    here = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in _statements(tree.body):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            module.functions.setdefault(node.name, node)
        elif isinstance(node, ast.ClassDef):
            module.classes.setdefault(node.name, _read_class(node))
        elif isinstance(node, ast.ImportFrom):
            _read_import(module, node, here)
        elif isinstance(node, (ast.Assign, ast.AugAssign)):
            _read_exported(module, node)
    return module


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Top-level statements, also those under ``if`` and ``try``."""
    for node in body:
        if isinstance(node, ast.If):
            yield from _statements([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from _statements([*node.body, *(inner for handler in node.handlers for inner in handler.body)])
        else:
            yield node


def _read_class(node: ast.ClassDef) -> _Class:
    methods: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
    for inner in node.body:
        if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)) and not inner.name.startswith("_"):
            methods.setdefault(inner.name, inner)
    return _Class(node, methods, [base.id for base in node.bases if isinstance(base, ast.Name)])


def _read_import(module: _Module, node: ast.ImportFrom, here: str) -> None:
    base = here.split(".")
    if node.level:
        base = base[: len(base) - node.level + 1]
        origin = ".".join([*base, *([node.module] if node.module else [])])
    else:
        origin = node.module or ""
    for alias in node.names:
        if alias.name == "*":
            module.stars.append(origin)
        else:
            module.imports.setdefault(alias.asname or alias.name, (origin, alias.name))


def _read_exported(module: _Module, node: ast.Assign | ast.AugAssign) -> None:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    if not any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
        return
    if isinstance(node.value, (ast.List, ast.Tuple)) and not module.computed:
        names = [item.value for item in node.value.elts if isinstance(item, ast.Constant)]
        module.exported = [*(module.exported or []), *(name for name in names if isinstance(name, str))]
    else:
        module.exported, module.computed = None, True


def _signature(node: ast.AST) -> str:
    """Parameters with defaults, without annotations and without self or cls."""
    method = False
    if isinstance(node, ast.ClassDef):
        makers = {inner.name: inner for inner in node.body if isinstance(inner, ast.FunctionDef)}
        maker = makers.get("__init__") or makers.get("__new__")
        if maker is None:
            return "(...)"
        node, method = maker, True
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return "()"
    decorators = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
    if "property" in decorators or "cache_readonly" in decorators:
        return ""
    given = node.args
    plain = ast.arguments(
        posonlyargs=[ast.arg(arg.arg) for arg in given.posonlyargs],
        args=[ast.arg(arg.arg) for arg in given.args],
        vararg=ast.arg(given.vararg.arg) if given.vararg else None,
        kwonlyargs=[ast.arg(arg.arg) for arg in given.kwonlyargs],
        kw_defaults=given.kw_defaults,
        kwarg=ast.arg(given.kwarg.arg) if given.kwarg else None,
        defaults=given.defaults,
    )
    first = plain.posonlyargs or plain.args
    if first and (method or first[0].arg in ("self", "cls")):
        del first[0]
        required = len(plain.posonlyargs) + len(plain.args)
        plain.defaults = plain.defaults[max(0, len(plain.defaults) - required) :]
    return f"({ast.unparse(plain)})"


def _is_public(module: str) -> bool:
    return not any(part.startswith("_") for part in module.split("."))


def _rename(module: str) -> str:
    return _RENAMED.get(module, module)
