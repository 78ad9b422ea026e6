"""Small files that must be whole and private."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def write_private(path: Path, content: bytes | str) -> None:
    """Replace `path` in one step, for the owner only: a reader sees the old or the new content, whole."""
    replace_file(path, content.encode() if isinstance(content, str) else content, durable=True)


def replace_file(path: Path, data: bytes, *, durable: bool) -> None:
    """As `write_private`; without `durable` the new content may be lost by a power cut, and no disk is waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Threads write the same file at once; a fixed set of names keeps a killed process from leaving ever more of them.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def tail(path: Path, lines: int = 12, *, start: int = 0, limit: int = 65536) -> str:
    """The last lines of a log file from byte `start` on, for an error message; empty when there is none.

    Reads at most `limit` bytes.
    """
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(start, stream.tell() - limit))
            text = stream.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
