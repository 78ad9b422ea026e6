"""All in which the run differs from the guide. It fails for what differs otherwise, and for what is here in vain."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.guide import chapter
from tests.guide.chapter import Step


@dataclass(frozen=True)
class Instead:
    """Another command in a step's place."""

    here: str
    why: str


COMMANDS: dict[Step, Instead] = {
    chapter.PACKAGES: Instead(
        "install kilonova",
        "no yum: Kilonova's programs, an account `nova` with its folders, the units of deploy/systemd",
    ),
    chapter.COMPUTE_PACKAGES: Instead("install kilonova", "the same; sysfsutils is Debian's"),
}

WORDS: dict[Step, tuple[str, str]] = {
    chapter.ENABLE: (
        r"Created symlink from (\S+) to /usr(\S+)\.",
        r"Created symlink \1 → \2.",
    ),
}
"""What is shown, rewritten (pattern, replacement): newer releases of systemd say it so."""

MORE: dict[Step, tuple[str, ...]] = {
    chapter.COMPUTE_ENABLE: (r"Created symlink \S+/openstack-nova-compute\.service → \S+",),
}
"""Lines that are shown where the guide has nothing: systemctl says what it has done."""

FIELDS: dict[Step, frozenset[str]] = {
    chapter.USER: frozenset({"default_project_id", "email", "description", "password_expires_at", "options"}),
}
"""Rows that a newer `openstack` has beside the guide's."""

_GUIDES, _OTHERS = (Path(__file__).parents[2] / "docs/schema.md").read_text().split("Tables that the guide has not:")
_ROWS = dict(re.findall(r"^\| (\w+) \| (.*) \|$", _GUIDES, flags=re.MULTILINE))
GUIDES_TABLES = frozenset(_ROWS)
KEPT_TABLES = frozenset(name for name, now in _ROWS.items() if f"`{name}`" in now)
"""Of the guide's tables those that are still there; of each other one the page says where its data is."""
NEW_TABLES = frozenset(re.findall(r"^\| `(\w+)` \|", _OTHERS, flags=re.MULTILINE))

INSTALLING = r"apt-get |python3 -m venv |/opt/kilonova/bin/pip |ln -sf /opt/kilonova/|cp deploy/systemd/"
"""Commands of docs/install that the run replaces as it does the guide's `yum`."""

VIRTUALISATION = "[libvirt]\nvirt_type = qemu\n"
"""The guide has it where its count of processor flags is 0. Here always: machines of namespaces have no /dev/kvm of
their own, whatever the count is.
"""
SYSTEMCTL = "tests/guide/systemctl.py executes the unit files as they stand: machines of namespaces have no systemd"
LIBVIRTD = "no control groups and no security module, guests as root: machines of namespaces have neither"
