"""The files that browsers get: our pages, noVNC's core and xterm.js. Read once; only what was read is served."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

PAGES = Path(__file__).parent.parent / "pages"
DEBIAN = Path("/usr/share/novnc")
_NOVNC = ("core", "vendor")
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".html": "text/html", ".css": "text/css"}


@dataclass(frozen=True, slots=True)
class File:
    body: bytes
    kind: str
    tag: str
    """An ETag: a page that has not changed is not sent again."""


def load(made: Path) -> dict[str, File]:
    """By path. `made`: where scripts/setup.sh puts noVNC and xterm.js; of noVNC, a Debian package's will do.

    Without them the pages are there all the same, and say what is missing.
    """
    files = dict(_below(PAGES, ""))
    novnc = next((each for each in (made / "usr/share/novnc", DEBIAN) if (each / "core/rfb.js").is_file()), None)
    if novnc is not None:
        for name in _NOVNC:
            files |= _below(novnc / name, f"novnc/{name}/")
    return files | _below(made / "xterm", "xterm/")


def _below(directory: Path, prefix: str) -> dict[str, File]:
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            body = path.read_bytes()
            kind = _TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            found[f"/{prefix}{path.relative_to(directory).as_posix()}"] = File(body, kind, tag)
    return found
