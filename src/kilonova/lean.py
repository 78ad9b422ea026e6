"""What libraries load beside what we use of them, kept out of a role's process: each MiB is paid for once per process.

Called where a role's parts are chosen, before they are imported. Without it everything works the same.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any


def trim() -> None:
    # structlog would colour tracebacks with rich, which ours never are; httpx has a command line; yarl offers itself to
    # pydantic; requests, which policies that ask a server need, guesses what it takes for UTF-8 without.
    absent("rich", "pygments", "click", "better_exceptions", "pydantic_core", "charset_normalizer", "chardet")
    warnings.filterwarnings("ignore", message="Unable to find acceptable character detection")
    # The MariaDB driver has ciphers for passwords on connections without TLS, and only of some kinds of accounts; the
    # API makes keys and certificates now and then; each process has one kind of database.
    primitives = "cryptography.hazmat.primitives"
    late(f"{primitives}.hashes", f"{primitives}.serialization", f"{primitives}.asymmetric.padding")
    late("kilonova.compute.keys", "kilonova.compute.certificates")
    late("sqlalchemy.dialects.postgresql", "sqlite3", "kilonova.db.sqlite")
    # Kinds of options that none of ours is of.
    late("netaddr", "rfc3986")
    # SQLAlchemy's asynchronous sessions bring the ORM; uvicorn's package its command line and what watches processes.
    bare("sqlalchemy.ext.asyncio", "uvicorn")
    _LENT["uvicorn", "Config"] = "uvicorn.config"


_LENT: dict[tuple[str, str], str] = {}
"""What a bare package's own modules ask it for, and which of them has it: the package and the name."""


def absent(*names: str) -> None:
    """Whoever asks for one of these modules, and can do without it, does."""
    for name in names:
        if name not in sys.modules:
            sys.modules[name] = None  # type: ignore[assignment]  # the import system's own way


def late(*names: str) -> None:
    """These modules, when they are imported, are loaded when somebody first looks into them."""
    _FINDER.instead(names, _Late)


def bare(*names: str) -> None:
    """Of these packages modules can be imported; what they import themselves comes when somebody asks for that."""
    _FINDER.instead(names, _Bare)


def _unknown(module: types.ModuleType, name: str) -> AttributeError:
    return AttributeError(f"module {module.__name__!r} has no attribute {name!r}")


class _Late(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        # Whoever goes through all modules asks each for such names; who imports a module of this one asks for its path.
        if name.startswith("__") and name != "__path__":
            raise _unknown(self, name)
        _FINDER.leave(self.__name__)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


class _Bare(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise _unknown(self, name)
        if lent := _LENT.get((self.__name__, name)):
            return getattr(importlib.import_module(lent), name)
        if importlib.util.find_spec(f"{self.__name__}.{name}") is not None:
            return importlib.import_module(f"{self.__name__}.{name}")
        real = _FINDER.leave(self.__name__)
        if real is None or real.loader is None:
            raise _unknown(self, name)
        real.loader.exec_module(self)
        return getattr(self, name)


class _Finder(MetaPathFinder, Loader):
    """Makes modules of a kind of ours in place of some."""

    def __init__(self) -> None:
        self._kinds: dict[str, type[types.ModuleType]] = {}
        self._real: dict[str, ModuleSpec] = {}

    def instead(self, names: Sequence[str], kind: type[types.ModuleType]) -> None:
        self._kinds.update((name, kind) for name in names if name not in sys.modules)
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def leave(self, name: str) -> ModuleSpec | None:
        """From now on the module is loaded as usual; how, unless that was said before."""
        self._kinds.pop(name, None)
        return self._real.pop(name, None)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        real = PathFinder.find_spec(fullname, path, target) if fullname in self._kinds else None
        if real is None:
            return None
        self._real[fullname] = real
        spec = ModuleSpec(fullname, self, origin=real.origin)
        if self._kinds[fullname] is _Bare:
            spec.submodule_search_locations = real.submodule_search_locations
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """A module as any other, until it is ready."""

    def exec_module(self, module: types.ModuleType) -> None:
        module.__class__ = self._kinds[module.__name__]


_FINDER = _Finder()
