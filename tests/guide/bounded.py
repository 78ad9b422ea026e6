"""The site without Debian's Identity, Image and Networking: what `make test` has installed is enough for the chapter.

MariaDB, RabbitMQ and libvirt are the machine's own programs, Identity is Keystone as `kilonova up` has it, on SQLite.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from kilonova.allinone.services import services_dir
from tests.guide.base import Base

PROGRAMS = ("mariadbd", "rabbitmq-server", "virtlogd", "libvirtd", "qemu-system-x86_64", "systemctl", "systemd-analyze")

_SERVE = """
import waitress
from keystone.wsgi.api import application

waitress.serve(application, listen="0.0.0.0:5000 0.0.0.0:35357", threads=4)
"""


def missing() -> list[str]:
    """What it needs and is not here."""
    found = [name for name in PROGRAMS if shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]
    return found + [str(path) for path in (_keystone() / "bin/keystone-manage",) if not path.exists()]


class BoundedBase(Base):
    def parts(self) -> dict[str, Callable[[], None]]:
        parts = super().parts()
        return {name: parts[name] for name in ("MariaDB", "RabbitMQ", "Identity")}

    def _serve_identity(self) -> None:
        it, programs = self.controller, _keystone() / "bin"
        it.run("useradd --system --home-dir /var/lib/keystone --shell /usr/sbin/nologin keystone", check=False)
        it.run("install -d -o keystone -g keystone /etc/keystone /var/lib/keystone /var/log/keystone")
        self._prepare_identity(str(programs / "keystone-manage"), "sqlite:////var/lib/keystone/keystone.db")
        it.write("/usr/local/lib/serve-keystone.py", _SERVE)
        it.spawn(f"{programs}/python /usr/local/lib/serve-keystone.py", "/var/log/keystone/out.log")


def _keystone() -> Path:
    return services_dir() / "keystone"
