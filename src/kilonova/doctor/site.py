"""What is looked at: a deployment as a nova.conf has it, or the cloud of a state directory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from oslo_config import cfg

from kilonova import config
from kilonova.allinone.libvirtd import libvirt_uri
from kilonova.allinone.settings import Ports, advertised_host, host_in_url
from kilonova.allinone.state import open_state_dir
from kilonova.allinone.status import FRESH, Report, read_report
from kilonova.bus.identity import AGENT, own_user
from kilonova.bus.rabbit import RabbitOptions
from kilonova.doctor.findings import Finding, ok, warning, wrong
from kilonova.errors import Invalid
from kilonova.service import deployment
from kilonova.service.deployment import Account
from kilonova.service.mistakes import mistakes

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Whatever is None or empty is not named there, and is not looked at."""

    name: str
    """Where to fix things: the configuration's files, or the state directory."""
    conf: cfg.ConfigOpts
    host: str
    running: bool = True
    """Else there are files to look at, and nothing that answers."""
    database: str | None = None
    broker: RabbitOptions | None = None
    shared_user: bool = False
    """Hosts have no users of their own at the broker."""
    account: Account | None = None
    network_account: Account | None = None
    image: str | None = None
    network: str | None = None
    libvirt: str | None = None
    """The connection's URI."""
    libvirt_certain: bool = False
    """Whether this machine has to have it; else it does where the database knows it as a host."""
    pages: dict[str, str] = field(default_factory=dict)
    """The pages of consoles, by kind."""
    directories: dict[str, Path] = field(default_factory=dict)
    """Where room is needed, by what for."""
    guarded: dict[Path, bool] = field(default_factory=dict)
    """Files and directories with secrets, and whether a group may read them."""


def of_files(files: Sequence[Path]) -> tuple[Site | None, list[Finding]]:
    """A deployment, and what is to be said of its configuration. No site: nothing could start with these files."""
    check, name = "configuration", ", ".join(map(str, files))
    try:
        conf = config.load(files)
    except Invalid as error:
        return None, [wrong(check, error.message, f"correct it; 'kilonova config check --config-file {files[0]}'")]
    found = [wrong(check, message.removeprefix("Configuration: "), f"correct it in {name}")
             for message in mistakes(conf)]  # fmt: skip
    ignored = sum(not finding.old for path in files for finding in config.review(path))
    if not found:
        more = f"; {ignored} options without effect here, which 'kilonova config check' names" if ignored else ""
        found = [ok(check, name + more)]
    pages = {"vnc": f"{deployment.console_url(conf)}/vnc_auto.html"} | config.console_pages(conf)
    host = deployment.host_name(conf)
    controls = bool(conf.database.connection)
    state = deployment.state_path(conf)
    log = deployment.log_path(conf, "nova")
    site = Site(
        name=name,
        conf=conf,
        host=host,
        database=_tried(lambda: deployment.database(conf).url) if controls else None,
        broker=_tried(lambda: broker_of(conf)),
        shared_user=conf.host_identity != "required",
        account=_tried(lambda: deployment.account(conf)) if conf.keystone_authtoken.username else None,
        network_account=_tried(lambda: deployment.network_account(conf)) if deployment.networking(conf) else None,
        image=deployment.image_endpoint(conf),
        network=conf.neutron.endpoint_override,
        libvirt=None if conf.compute_driver == "sim" else conf.libvirt.connection_uri or "qemu:///system",
        libvirt_certain=not controls or bool(conf.libvirt.connection_uri),
        pages=pages if controls or conf.vnc.novncproxy_base_url else {},
        directories={
            "state_path": state,
            "instances_path": Path(conf.instances_path) if conf.instances_path else state / "instances",
            **({"logs": log.parent} if log is not None else {}),
        },
        guarded=dict.fromkeys(files, True) | _keys(conf),
    )
    return site, found


def broker_of(conf: cfg.ConfigOpts) -> RabbitOptions:
    """As the role that this file is for would connect: a host's own user may not pass for a controller's."""
    try:
        return deployment.broker(conf, "kilonova-doctor")
    except Invalid:
        return deployment.broker(conf, AGENT)


def is_agents(site: Site) -> bool:
    """Whether the broker's user is the one of this host's agent, who may do no more than that."""
    return site.broker is not None and site.broker.brokers[0].user == own_user(AGENT, site.host)


def of_state_dir(path: Path) -> tuple[Site | None, list[Finding]]:
    """The cloud of `kilonova up`. Raises CloudError for a directory that is damaged or somebody else's."""
    path = path.resolve()
    state = open_state_dir(path)
    report = read_report(path)
    files = [Path(name) for name in str(report.options.get("config_files", "")).split()] if report else []
    conf = config.load(files)
    name = f"--state-dir {path}"
    if report is None:
        found = [wrong("cloud", f"not running in {path}", f"kilonova up {name}")]
    else:
        found = _parts(report, path)
    host = host_in_url(advertised_host(str(report.options["bind"]))) if report else "127.0.0.1"
    ports = Ports.with_offset(int(report.options["port_offset"])) if report else Ports()
    account = Account(
        url=f"http://{host}:{ports.identity}",
        username="nova",
        password=state.secrets.nova,
        project="service",
        user_domain={"id": "default"},
        project_domain={"id": "default"},
    )
    networks = report is not None and report.options.get("networking") == "neutron"
    data = path / "kilonova"
    site = Site(
        name=name,
        conf=conf,
        host=deployment.host_name(conf),
        running=report is not None,
        database=f"sqlite:///{data / 'compute.sqlite'}",
        account=account if report else None,
        network_account=account if networks else None,
        image=f"http://{host}:{ports.image}",
        network=f"http://{host}:{ports.network}",
        libvirt=libvirt_uri(path) if report and report.hypervisor == "libvirt" else None,
        libvirt_certain=True,
        pages={"vnc": f"http://{host}:{ports.console}/vnc_auto.html"} | config.console_pages(conf) if report else {},
        directories={"state directory": path},
        guarded={path: False, path / "secrets.json": False, data / "CA/private": False},
    )
    return site, found


def _parts(report: Report, path: Path) -> list[Finding]:
    if report.silent_for > FRESH:
        text = f"process {report.owner.pid} has been silent for {report.silent_for:.0f} s"
        return [wrong("cloud", text, f"look into {path / 'log'}; 'kilonova down' and 'kilonova up' begin anew")]
    found = []
    for part in report.parts:
        check, fix = f"cloud: {part.name}", f"look into {path / 'log'}"
        again = f", started {part.restarts + 1} times" if part.restarts else ""
        if part.state != "ready":
            found.append(wrong(check, f"{part.state}: {part.detail}".rstrip(": "), fix))
        elif part.restarts:
            found.append(warning(check, f"{part.state}{again}", fix))
        else:
            found.append(ok(check, part.state))
    if not report.ready:
        found.append(wrong("cloud", report.reason, f"look into {path / 'log'}"))
    return found


def _keys(conf: cfg.ConfigOpts) -> dict[Path, bool]:
    """Private keys that roles on this machine use, as far as they are there."""
    named = (
        conf.key or conf.cert,
        conf.wsgi.ssl_key_file,
        conf.oslo_messaging_rabbit.ssl_key_file,
        conf.vnc.vencrypt_client_key,
    )
    authority = Path(conf.crypto.ca_path) if conf.crypto.ca_path else deployment.state_path(conf) / "CA"
    keys = {Path(name): True for name in named if name} | {authority / "private": False}
    return {path: group for path, group in keys.items() if path.exists()}


def _tried(read: Callable[[], T]) -> T | None:
    """None where it has been said already what is wrong with it."""
    try:
        return read()
    except Invalid:
        return None
