"""Makes one browser script of a library in CommonJS modules, since Debian ships xterm.js as those alone.

    python bundle.py LIBRARY/public/Terminal.js Terminal OUT.js

Runs at installation, with nothing but Python: no module may ask for anything outside of the library.
"""

from __future__ import annotations

import json
import os.path
import re
import sys
from pathlib import Path

_REQUIRE = re.compile(r"""\brequire\((["'])(\.{1,2}/[^"']+)\1\)""")

_HEAD = """(function () {
"use strict";
var modules = {}, made = {};
function load(id) {
  if (!made[id]) {
    made[id] = { exports: {} };
    modules[id](made[id], made[id].exports);
  }
  return made[id].exports;
}
"""


def bundle(entry: Path, name: str) -> str:
    """The script of `entry` and all it requires; what it exports as `name` becomes a global.

    Raises FileNotFoundError for a module that is not there.
    """
    root = entry.parent
    found: dict[str, str] = {}
    waiting = [entry]
    while waiting:
        path = waiting.pop()
        key = _key(path, root)
        if key in found:
            continue
        text = re.sub(r"^//# sourceMappingURL=.*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        needed = {match[2]: _resolve(path, match[2]) for match in _REQUIRE.finditer(text)}
        ids = {asked: _key(target, root) for asked, target in needed.items()}
        found[key] = _REQUIRE.sub(lambda match, ids=ids: f"load({json.dumps(ids[match[2]])})", text)  # type: ignore[misc] # a default argument
        waiting.extend(needed.values())
    parts = [
        f"modules[{json.dumps(key)}] = function (module, exports) {{\n{found[key]}\n}};\n" for key in sorted(found)
    ]
    last = f"window[{json.dumps(name)}] = load({json.dumps(_key(entry, root))})[{json.dumps(name)}];\n}})();\n"
    return _HEAD + "".join(parts) + last


def _key(path: Path, root: Path) -> str:
    return os.path.relpath(path, root).replace(os.sep, "/")


def _resolve(path: Path, asked: str) -> Path:
    target = path.parent / asked
    for candidate in (target, target.with_name(f"{target.name}.js"), target / "index.js"):
        if candidate.is_file():
            return Path(os.path.normpath(candidate))
    raise FileNotFoundError(f"{path}: there is no module {asked}")


if __name__ == "__main__":
    source, exported, out = sys.argv[1:]
    Path(out).write_text(bundle(Path(source), exported), encoding="utf-8")
