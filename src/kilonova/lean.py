"""What libraries load beside what we use of them, kept out of a role's process: each MiB is paid for once per process.

Called where a role's parts are chosen, before they are imported. Without it everything works the same.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from typing import Any


def trim() -> None:
    # structlog would colour tracebacks with rich, which ours never are; httpx has a command line; yarl offers itself to
    # pydantic; requests, which policies that ask a server need, guesses what it takes for UTF-8 without.
    absent("rich", "pygments", "better_exceptions", "pydantic_core", "charset_normalizer", "chardet")
    warnings.filterwarnings("ignore", message="Unable to find acceptable character detection")
    # The MariaDB driver has ciphers for passwords on connections without TLS, and only of some kinds of accounts; the
    # API makes keys and certificates now and then.
    primitives = "cryptography.hazmat.primitives"
    late(f"{primitives}.hashes", f"{primitives}.serialization", f"{primitives}.asymmetric.padding")
    late("kilonova.compute.keys", "kilonova.compute.certificates")
    late("sqlalchemy.dialects.postgresql")
    # SQLAlchemy's asynchronous sessions bring the ORM.
    bare("sqlalchemy.ext.asyncio")


def absent(*names: str) -> None:
    """Whoever asks for one of these modules, and can do without it, does."""
    for name in names:
        if name not in sys.modules:
            sys.modules[name] = None  # type: ignore[assignment]  # the import system's own way


def late(*names: str) -> None:
    """These modules are there, and loaded when somebody first looks into them."""
    for name in names:
        if name not in sys.modules and importlib.util.find_spec(name) is not None:
            package, _, attribute = name.rpartition(".")
            sys.modules[name] = _Late(name)
            setattr(sys.modules[package], attribute, sys.modules[name])


class _Late(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def bare(name: str) -> None:
    """This package's modules are there, and what it imports itself only when somebody asks it for anything else."""
    spec = importlib.util.find_spec(name) if name not in sys.modules else None
    if spec is None or spec.loader is None:
        return
    sys.modules[name] = _Bare(spec)


class _Bare(types.ModuleType):
    def __init__(self, spec: importlib.machinery.ModuleSpec) -> None:
        super().__init__(spec.name)
        self.__spec__ = spec
        self.__path__ = list(spec.submodule_search_locations or ())
        self.__loaded = False

    def __getattr__(self, name: str) -> Any:
        if importlib.util.find_spec(f"{self.__name__}.{name}") is not None:
            return importlib.import_module(f"{self.__name__}.{name}")
        if self.__loaded or name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__loaded = True
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)
