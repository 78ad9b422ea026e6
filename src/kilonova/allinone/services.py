"""Keystone and Glance as this cloud runs them: their configuration, their content, how to ask whether they live."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kilonova.allinone.errors import CloudError
from kilonova.allinone.files import write_private
from kilonova.allinone.secrets import Secrets
from kilonova.allinone.settings import CloudSettings, host_in_url

INSIDE = Path(__file__).with_name("inside.py")

_QUIET = """\
default_log_levels = sqlalchemy=WARN,alembic=WARN,oslo.messaging=ERROR,keystonemiddleware=ERROR,dogpile=WARN
"""

_KEYSTONE_CONF = """\
[DEFAULT]
debug = false
use_stderr = true
{quiet}
[database]
# One writer at a time is all that SQLite has; a second one waits for it (seconds).
connection = sqlite:///{directory}/keystone.sqlite?timeout=30
[token]
provider = fernet
[fernet_tokens]
key_repository = {directory}/fernet-keys
[fernet_receipts]
key_repository = {directory}/fernet-keys
[credential]
key_repository = {directory}/credential-keys
[identity]
# bcrypt's cost is 2^rounds. The default of 12 takes 230 ms of processor time for every token; 4 takes 1 ms. The
# passwords of this cloud are random and long, so a slow hash would protect nothing.
password_hash_rounds = 4
# All that bcrypt takes; with a larger limit Keystone logs a warning for every password.
max_password_length = 72
[cache]
enabled = true
# In this process's memory, expired entries removed; dogpile's own memory backend would grow for ever.
backend = oslo_cache.dict
expiration_time = 300
"""

_GLANCE_CONF = """\
[DEFAULT]
debug = false
use_stderr = true
{quiet}
enabled_backends = fs:file
worker_self_reference_url = {image_url}
[database]
connection = sqlite:///{directory}/glance.sqlite?timeout=30
[glance_store]
default_backend = fs
[fs]
filesystem_store_datadir = {directory}/store
[os_glance_staging_store]
filesystem_store_datadir = {directory}/staging
[os_glance_tasks_store]
filesystem_store_datadir = {directory}/tasks
[paste_deploy]
flavor = keystone
config_file = {paste}
[keystone_authtoken]
www_authenticate_uri = {identity_url}
auth_url = {identity_url}
auth_type = password
username = glance
password = {password}
project_name = service
user_domain_name = Default
project_domain_name = Default
region_name = {region}
service_token_roles = service
service_token_roles_required = true
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """How to run one of the services: a command, what it reads on standard input, and where it answers."""

    name: str
    """As `kilonova status` shows it."""
    command: tuple[str, ...]
    stdin: dict[str, Any]
    health_url: str
    port: int


def services_dir() -> Path:
    """Where `make setup` puts the services' virtual environments: beside our own, shared by all clouds."""
    override = os.environ.get("KILONOVA_SERVICES_DIR")
    return Path(override) if override else Path(sys.prefix).parent / ".services"


def template_path(package: str) -> Path:
    """An empty database with that package's newest schema; `make setup` makes it (warm.py)."""
    return services_dir() / package / "template.sqlite"


def service_python(package: str) -> Path:
    """Its interpreter. Raises CloudError when it is not installed."""
    python = services_dir() / package / "bin/python"
    if not python.exists():
        raise CloudError(f"{package} is not installed ({python} is missing)", remedy="run 'make setup'")
    return python


def identity_spec(settings: CloudSettings, secrets: Secrets) -> ServiceSpec:
    """Keystone: writes its configuration file and says how to run it."""
    directory = settings.state_dir / "identity"
    config = directory / "keystone.conf"
    write_private(config, _KEYSTONE_CONF.format(quiet=_QUIET, directory=directory))
    port = settings.ports.identity
    return ServiceSpec(
        name="keystone",
        command=(str(service_python("keystone")), "-P", str(INSIDE), "identity"),
        stdin={
            "directory": str(directory),
            "config": str(config),
            "template": str(template_path("keystone")),
            "serve": True,
            "bind": settings.bind,
            "port": port,
            # With more threads SQLite's writers meet, and the interpreter's lock keeps them from being faster.
            "threads": 1,
            "content": identity_content(settings, secrets),
        },
        health_url=f"http://{host_in_url(settings.host)}:{port}/v3",
        port=port,
    )


def image_spec(settings: CloudSettings, secrets: Secrets) -> ServiceSpec:
    """Glance: writes its configuration file and says how to run it."""
    directory = settings.state_dir / "image"
    for part in ("store", "staging", "tasks"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    python = service_python("glance")
    # A folder of its own, since Glance takes a folder, not a file, from its environment.
    config = directory / "etc/glance-api.conf"
    text = _GLANCE_CONF.format(
        quiet=_QUIET,
        directory=directory,
        image_url=settings.image_url,
        identity_url=settings.identity_url,
        password=secrets.glance,
        region=settings.region,
        paste=python.parent.parent / "etc/glance/glance-api-paste.ini",
    )
    write_private(config, text)
    port = settings.ports.image
    return ServiceSpec(
        name="glance",
        command=(str(python), "-P", str(INSIDE), "image"),
        stdin={
            "directory": str(directory),
            "config": str(config),
            "template": str(template_path("glance")),
            "serve": True,
            "bind": settings.bind,
            "port": port,
            # A slow reader of an image holds a thread until its download ends.
            "threads": 8,
        },
        health_url=f"http://{host_in_url(settings.host)}:{port}/versions",
        port=port,
    )


def identity_content(settings: CloudSettings, secrets: Secrets) -> dict[str, Any]:
    """What Keystone's database must hold: roles, projects, users and the catalog."""
    host = host_in_url(settings.host)
    compute = f"http://{host}:{settings.ports.compute}"
    users, services = [], []
    if settings.networking == "neutron":
        users.append(
            {
                "name": "neutron",
                "password": secrets.neutron,
                "roles": [["service", "service"], ["service", "admin"]],
            }
        )
        services.append({"type": "network", "name": "neutron", "url": settings.network_url})
    return {
        "region": settings.region,
        "roles": ["admin", "manager", "member", "reader", "service"],
        "implied_roles": [["admin", "manager"], ["manager", "member"], ["member", "reader"]],
        "projects": ["admin", "demo", "service"],
        "users": [
            {
                "name": "admin",
                "password": secrets.admin,
                "roles": [["admin", "admin"]],
                "system_role": "admin",
            },
            {"name": "demo", "password": secrets.demo, "roles": [["demo", "member"], ["demo", "reader"]]},
            {
                "name": settings.service_username,
                "password": secrets.nova,
                "roles": [["service", "service"], ["service", "admin"]],
            },
            {
                "name": "glance",
                "password": secrets.glance,
                "roles": [["service", "service"], ["service", "admin"]],
            },
            *users,
        ],
        "services": [
            {"type": "identity", "name": "keystone", "url": f"http://{host}:{settings.ports.identity}/v3"},
            {"type": "image", "name": "glance", "url": f"http://{host}:{settings.ports.image}"},
            {"type": "compute", "name": "nova", "url": f"{compute}/v2.1"},
            {"type": "compute_legacy", "name": "nova_legacy", "url": f"{compute}/v2/%(tenant_id)s"},
            *services,
        ],
    }
