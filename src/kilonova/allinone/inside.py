"""Runs INSIDE the virtual environment of Keystone, Glance or Neutron: brings its database up to date and serves it.

`PYTHON -P inside.py identity|image|network`, with a JSON object on standard input (see services.py); without -P the
modules beside this file would hide those of the same name. One process prepares and serves, because importing a service
takes two seconds. Nothing of Kilonova is importable here, except what runs inside Neutron.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import sqlite3
import sys
import types
import uuid
import warnings
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1  # prctl(2)


def die_with(parent: int) -> None:
    """Have the kernel end this process together with the one that started it."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        sys.exit("the process that started this one is gone")


def copy_template(spec: dict[str, Any], database: Path) -> None:
    """Spare a new cloud the migrations: `make setup` has run them once for this very release."""
    template = Path(spec["template"])
    if not database.exists() and template.is_file():
        temporary = database.with_suffix(".new")
        shutil.copyfile(template, temporary)
        temporary.rename(database)
        stamp = template.with_suffix(".release")
        shutil.copyfile(stamp, database.parent / "schema-release")


def prepare_database(path: Path) -> None:
    """Readers and the writer of one SQLite file do not block each other in WAL mode, which the file remembers."""
    connection = sqlite3.connect(path)
    try:
        answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if answer != "ok":
            raise sqlite3.DatabaseError(answer)
        connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.DatabaseError as error:
        sys.exit(f"database {path} is damaged ({error}): restore it from a backup or start with a new state directory")
    finally:
        connection.close()


def serve(application: Any, spec: dict[str, Any]) -> None:
    """Answer requests for ever. Waitress takes in requests and sends out answers on its own thread."""
    import waitress

    waitress.serve(
        application,
        host=spec["bind"],
        port=spec["port"],
        threads=spec["threads"],
        ident=None,
        max_request_body_size=1 << 40,
        connection_limit=1000,
        channel_timeout=300,
        # An image is written to a file by waitress first; in memory it keeps no more than this.
        inbuf_overflow=1 << 20,
    )


def defer_saml_schemas() -> None:
    """Have the XML schemas of SAML federation read when a SAML document comes, not at each start (a fifth of it)."""
    name = "saml2.xml.schema"
    stand_in: Any = types.ModuleType(name)

    class XMLSchemaError(Exception):
        """As the real module's."""

    def validate(doc: Any, validator: Any = None) -> None:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
        real = importlib.import_module(name)
        try:
            real.validate(doc, validator)
        except real.XMLSchemaError as error:
            raise XMLSchemaError(*error.args) from error

    stand_in.XMLSchemaError, stand_in.validate = XMLSchemaError, validate
    sys.modules[name] = stand_in


def identity(spec: dict[str, Any]) -> Any:
    """Keystone's application, with everything that `spec['content']` names in its database."""
    os.environ["OS_KEYSTONE_CONFIG_FILES"] = spec["config"]
    defer_saml_schemas()
    from keystone.common import fernet_utils

    for repository, group in (("fernet-keys", "fernet_tokens"), ("credential-keys", "credential")):
        directory = Path(spec["directory"]) / repository
        if not directory.is_dir() or not list(directory.iterdir()):
            keys = fernet_utils.FernetUtils(str(directory), 3, group)
            keys.create_key_directory()
            keys.initialize_key_repository()
    # Importing this builds the application, which asks for the keys.
    from keystone.common.sql import upgrades
    from keystone.wsgi import api

    if spec["migrate"]:
        upgrades.offline_sync_database_to_version()
    if spec["serve"]:
        _IdentityContent(spec["content"]).ensure()
    return api.application


class _IdentityContent:
    """Makes the database hold what is wanted; leaves everything else in it alone."""

    def __init__(self, content: dict[str, Any]) -> None:
        from keystone import exception
        from keystone.common import driver_hints, provider_api

        self.content = content
        self.apis = provider_api.ProviderAPIs
        self.exception = exception
        self.hints = driver_hints.Hints
        self.domain = "default"

    def ensure(self) -> None:
        self._ensure_domain()
        roles = self._ensure_roles()
        projects = {name: self._ensure_project(name) for name in self.content["projects"]}
        for user in self.content["users"]:
            user_id = self._ensure_user(user["name"], user["password"])
            for project, role in user["roles"]:
                self._grant(user_id, projects[project], roles[role])
            if user.get("system_role"):
                self.apis.assignment_api.create_system_grant_for_user(user_id, roles[user["system_role"]])
        self._ensure_region()
        for service in self.content["services"]:
            self._ensure_service(service)

    def _ensure_domain(self) -> None:
        try:
            self.apis.resource_api.get_domain(self.domain)
        except self.exception.DomainNotFound:
            domain = {"id": self.domain, "name": "Default", "enabled": True, "description": "The default domain"}
            self.apis.resource_api.create_domain(self.domain, domain)

    def _ensure_roles(self) -> dict[str, str]:
        hints = self.hints()
        hints.add_filter("domain_id", None)
        found = {role["name"]: role["id"] for role in self.apis.role_api.list_roles(hints)}
        for name in self.content["roles"]:
            if name not in found:
                role_id = uuid.uuid4().hex
                role = {"name": name, "id": role_id, "options": {"immutable": True}}
                self.apis.role_api.create_role(role_id, role)
                found[name] = role_id
        for prior, implied in self.content["implied_roles"]:
            try:
                self.apis.role_api.get_implied_role(found[prior], found[implied])
            except self.exception.ImpliedRoleNotFound:
                self.apis.role_api.create_implied_role(found[prior], found[implied])
        return found

    def _ensure_project(self, name: str) -> str:
        try:
            return str(self.apis.resource_api.get_project_by_name(name, self.domain)["id"])
        except self.exception.ProjectNotFound:
            project_id = uuid.uuid4().hex
            project = {"id": project_id, "name": name, "domain_id": self.domain, "enabled": True, "description": ""}
            self.apis.resource_api.create_project(project_id, project)
            return project_id

    def _ensure_user(self, name: str, password: str) -> str:
        try:
            user = self.apis.identity_api.get_user_by_name(name, self.domain)
        except self.exception.UserNotFound:
            wanted = {"name": name, "password": password, "domain_id": self.domain, "enabled": True}
            return str(self.apis.identity_api.create_user(wanted)["id"])
        update: dict[str, Any] = {} if user["enabled"] else {"enabled": True}
        try:
            self.apis.identity_api.driver.authenticate(user["id"], password)
        except AssertionError:
            update["password"] = password
        if update:
            self.apis.identity_api.update_user(user["id"], update)
        return str(user["id"])

    def _grant(self, user_id: str, project_id: str, role_id: str) -> None:
        if role_id not in self.apis.assignment_api.get_roles_for_user_and_project(user_id, project_id):
            self.apis.assignment_api.add_role_to_user_and_project(user_id, project_id, role_id)

    def _ensure_region(self) -> None:
        try:
            self.apis.catalog_api.get_region(self.content["region"])
        except self.exception.RegionNotFound:
            self.apis.catalog_api.create_region({"id": self.content["region"], "description": ""})

    def _ensure_service(self, wanted: dict[str, str]) -> None:
        hints = self.hints()
        hints.add_filter("type", wanted["type"])
        found = self.apis.catalog_api.list_services(hints)
        if found:
            service_id = found[0]["id"]
        else:
            service_id = uuid.uuid4().hex
            service = {"id": service_id, "name": wanted["name"], "type": wanted["type"], "enabled": True}
            self.apis.catalog_api.create_service(service_id, service)
        hints = self.hints()
        hints.add_filter("service_id", service_id)
        hints.add_filter("region_id", self.content["region"])
        endpoints = {endpoint["interface"]: endpoint for endpoint in self.apis.catalog_api.list_endpoints(hints)}
        for interface in ("public", "internal", "admin"):
            endpoint = endpoints.get(interface)
            if endpoint is None:
                endpoint = {"id": uuid.uuid4().hex, "interface": interface, "service_id": service_id, "enabled": True}
                endpoint |= {"region_id": self.content["region"], "url": wanted["url"]}
                self.apis.catalog_api.create_endpoint(endpoint["id"], endpoint)
            elif endpoint["url"] != wanted["url"]:
                self.apis.catalog_api.update_endpoint(endpoint["id"], {**endpoint, "url": wanted["url"]})


def image(spec: dict[str, Any]) -> Any:
    """Glance's application."""
    os.environ["OS_GLANCE_CONFIG_DIR"] = str(Path(spec["config"]).parent)
    from glance.wsgi import api

    if spec["migrate"]:
        from glance.cmd import manage

        try:
            manage.DbCommands().sync()
        except SystemExit as ended:  # how it says that there is nothing to do
            if ended.code not in (None, 0):
                raise
    return api.application


def network(spec: dict[str, Any]) -> Any:
    """Neutron's application. Exits when the database has another release's schema."""
    config = Path(spec["config"])
    os.environ["OS_NEUTRON_CONFIG_DIR"], os.environ["OS_NEUTRON_CONFIG_FILES"] = str(config.parent), config.name
    database = Path(spec["directory"]) / "neutron.sqlite"
    versions = Path(_package_directory("neutron")) / "db/migration/alembic_migrations/versions"
    heads = {(versions / name).read_text().strip() for name in ("EXPAND_HEAD", "CONTRACT_HEAD")}
    stored = _alembic_heads(database)
    if not stored:
        _create_network_schema(database, heads)
    elif stored != heads:
        sys.exit(
            f"{database} was made by another release of Neutron than {importlib.metadata.version('neutron')}, and on "
            "SQLite Neutron cannot convert it: use that release, or start with a new state directory"
        )
    from neutron.wsgi import api

    return api.application


def _package_directory(package: str) -> str:
    found = importlib.util.find_spec(package)
    assert found is not None
    assert found.submodule_search_locations is not None
    return found.submodule_search_locations[0]


def _alembic_heads(database: Path) -> set[str]:
    connection = sqlite3.connect(database)
    try:
        return {row[0] for row in connection.execute("SELECT version_num FROM alembic_version")}
    except sqlite3.OperationalError:  # no such table
        return set()
    finally:
        connection.close()


_DEFAULT_RULES = [
    {"direction": direction, "ethertype": ethertype, "remote_group_id": group, "used_in_non_default_sg": not group}
    for direction, group in (("egress", None), ("ingress", "PARENT"))
    for ethertype in ("IPv4", "IPv6")
]
"""Of which Neutron makes a new security group's rules: all may leave; in a project's default group members enter."""


def _create_network_schema(database: Path, heads: set[str]) -> None:
    """From the models: Neutron's migrations alter constraints, which SQLite cannot. The heads go in last of all."""
    import uuid

    import sqlalchemy
    from neutron.db.migration.models import head

    engine = sqlalchemy.create_engine(f"sqlite:///{database}")
    metadata = head.get_metadata()
    metadata.create_all(engine)
    with engine.begin() as connection:
        rules = metadata.tables["securitygroupdefaultrules"]
        connection.execute(rules.delete())
        for rule in _DEFAULT_RULES:
            attributes = metadata.tables["standardattributes"].insert().values(resource_type=rules.name)
            key: Any = connection.execute(attributes).inserted_primary_key
            values = {"id": str(uuid.uuid4()), "standard_attr_id": key[0], "used_in_default_sg": True}
            connection.execute(rules.insert().values(values | rule))
        connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) NOT NULL)")
        for version in sorted(heads):
            connection.exec_driver_sql("INSERT INTO alembic_version (version_num) VALUES (?)", (version,))
    engine.dispose()


def schema_is_current(directory: Path, package: str) -> bool:
    """Whether the database was brought up to date by this very release. Exits when a newer one did."""
    installed = importlib.metadata.version(package)
    try:
        stored = (directory / "schema-release").read_text().strip()
    except FileNotFoundError:
        return False
    if [int(part) for part in stored.split(".")] > [int(part) for part in installed.split(".")]:
        sys.exit(
            f"{directory} was written by {package} {stored}, and {installed} is installed: "
            "use the newer release, or start with a new state directory"
        )
    return stored == installed


def main() -> None:
    spec = json.load(sys.stdin)
    die_with(spec["parent"])
    kind = sys.argv[1]
    # The services read the command line when they are imported.
    sys.argv[1:] = []
    warnings.simplefilter("ignore")
    build, package = {
        "identity": (identity, "keystone"),
        "image": (image, "glance"),
        "network": (network, "neutron"),
    }[kind]
    directory = Path(spec["directory"])
    directory.mkdir(parents=True, exist_ok=True)
    copy_template(spec, directory / f"{package}.sqlite")
    prepare_database(directory / f"{package}.sqlite")
    spec["migrate"] = not schema_is_current(directory, package)
    application = build(spec)
    (directory / "schema-release").write_text(importlib.metadata.version(package))
    if spec["serve"]:
        serve(application, spec)


if __name__ == "__main__":
    main()
