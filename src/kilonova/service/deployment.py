"""What nova.conf says of a deployment, one function for each thing, so that a role reads only what it is to know."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path

from oslo_config import cfg

from kilonova.bus.identity import AGENT, OF_A_HOST, Senders, own_user
from kilonova.bus.rabbit import RabbitOptions
from kilonova.bus.transport import BrokerAddress, TlsOptions, parse_transport_url
from kilonova.errors import Invalid
from kilonova.service.certificates import usable


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseOptions:
    url: str
    pool_size: int
    max_overflow: int
    recycle: int
    """Seconds after which a connection is replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who this service is to Identity. Domains as Identity's API takes them: {"id": ...} or {"name": ...}."""

    url: str
    username: str
    password: str = field(repr=False)
    project: str
    user_domain: dict[str, str]
    project_domain: dict[str, str]
    region: str | None = None
    verify: bool | str = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Where a role answers HTTP. `certificate`: (certificate, key), for TLS."""

    address: str
    port: int
    certificate: tuple[str, str] | None = None


def host_name(conf: cfg.ConfigOpts) -> str:
    return str(conf.host or socket.gethostname())


def state_path(conf: cfg.ConfigOpts) -> Path:
    return Path(conf.state_path)


def lock_path(conf: cfg.ConfigOpts) -> Path:
    return Path(conf.oslo_concurrency.lock_path or conf.state_path)


def database(conf: cfg.ConfigOpts) -> DatabaseOptions:
    """Raises Invalid without repeating the URL, which holds a password."""
    from kilonova.db import tls
    from kilonova.db.engine import async_url

    url = conf.database.connection
    if not url:
        raise Invalid("Configuration: [database] connection is missing, e.g. mysql://USER:PASSWORD@HOST/nova.")
    if conf.database.connection_parameters:
        url += ("&" if "?" in url else "?") + conf.database.connection_parameters
    try:
        tls.split(async_url(url))
    except Invalid as error:
        raise Invalid(f"Configuration: {error.message}") from None
    except ValueError as error:
        raise Invalid(f"Configuration: [database] connection: {error}.") from None
    except Exception:
        raise Invalid("Configuration: [database] connection is no URL KIND://USER:PASSWORD@HOST/NAME.") from None
    return DatabaseOptions(
        url=url,
        pool_size=conf.database.max_pool_size,
        max_overflow=conf.database.max_overflow,
        recycle=conf.database.connection_recycle_time,
    )


def broker(conf: cfg.ConfigOpts, program: str) -> RabbitOptions:
    """`transport_url`, or what [oslo_messaging_rabbit] says. Raises Invalid."""
    tls = bool(conf.oslo_messaging_rabbit.ssl)
    if conf.transport_url:
        brokers, tls = parse_transport_url(conf.transport_url, tls=tls)
    else:
        places = conf.oslo_messaging_rabbit.rabbit_hosts or [conf.oslo_messaging_rabbit.rabbit_host]
        brokers = [_broker(conf, place) for place in places]
    files = TlsOptions(
        ca_file=_path(conf.oslo_messaging_rabbit.ssl_ca_file),
        cert_file=_path(conf.oslo_messaging_rabbit.ssl_cert_file),
        key_file=_path(conf.oslo_messaging_rabbit.ssl_key_file),
    )
    for file in (files.ca_file, files.cert_file, files.key_file):
        if tls and file is not None and not file.is_file():
            raise Invalid(f"Configuration: [oslo_messaging_rabbit]: {file} does not exist.")
    try:
        if tls:
            files.context()
    except OSError as error:
        raise Invalid(f"Configuration: [oslo_messaging_rabbit] ssl_...: its files cannot be used: {error}.") from error
    return RabbitOptions(
        senders=_senders(conf, program, brokers),
        brokers=tuple(brokers),
        tls=files if tls else None,
        heartbeat=conf.oslo_messaging_rabbit.heartbeat_timeout_threshold,
        prefix=conf.control_exchange,
        name=f"{program}@{host_name(conf)}",
    )


def _senders(conf: cfg.ConfigOpts, program: str, brokers: list[BrokerAddress]) -> Senders | None:
    """Raises Invalid where this role would not be believed, or a host has the control plane's user."""
    if conf.host_identity != "required":
        return None
    control = frozenset(conf.control_users)
    own = own_user(program, host_name(conf))
    for user in {broker.user for broker in brokers}:
        if program == AGENT and user != own:
            raise Invalid(
                f"Configuration: host_identity = required: the broker's user has to be '{own}', not '{user}'."
            )
        if program != AGENT and user not in control and (program not in OF_A_HOST or user != own):
            raise Invalid(
                f"Configuration: host_identity = required: the broker's user '{user}' is none of control_users."
            )
    if program == AGENT and own in control:
        raise Invalid(f"Configuration: control_users: '{own}' is a host's.")
    return Senders(control=control)


def _broker(conf: cfg.ConfigOpts, place: str) -> BrokerAddress:
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdigit() or (":" in host and not host.startswith("[")):
        host, port = place, str(conf.oslo_messaging_rabbit.rabbit_port)
    return BrokerAddress(
        host=host.strip("[]"),
        port=int(port),
        user=conf.oslo_messaging_rabbit.rabbit_userid,
        password=conf.oslo_messaging_rabbit.rabbit_password,
        vhost=conf.oslo_messaging_rabbit.rabbit_virtual_host,
    )


def account(conf: cfg.ConfigOpts, group: str = "keystone_authtoken") -> Account:
    """Raises Invalid naming what is missing."""
    section = conf[group]
    if section.auth_type not in ("password", "v3password", "v2password"):
        raise Invalid(f"Configuration: [{group}] auth_type = {section.auth_type}: only 'password' is known.")
    url = section.auth_url or (conf.keystone_authtoken.www_authenticate_uri if group == "keystone_authtoken" else None)
    found = {"auth_url": url, "username": section.username, "password": section.password}
    missing = [name for name, value in found.items() if not value]
    if missing or url is None:
        raise Invalid(f"Configuration: [{group}] {', '.join(missing)}: missing.")
    default = _domain(section.default_domain_id, section.default_domain_name) or {"id": "default"}
    return Account(
        url=without_version(url),
        username=section.username,
        password=section.password,
        project=section.project_name or "service",
        user_domain=_domain(section.user_domain_id, section.user_domain_name) or default,
        project_domain=_domain(section.project_domain_id, section.project_domain_name) or default,
        region=section.region_name,
        verify=_verify(section.insecure, section.cafile),
    )


def networking(conf: cfg.ConfigOpts) -> bool:
    """Whether there is Networking: [neutron] says so, or where it is."""
    return bool(conf.neutron.endpoint_override or conf.neutron.auth_url or conf.neutron.username)


def network_account(conf: cfg.ConfigOpts) -> Account:
    """As whom Networking is asked: [neutron]'s account, or the service's own."""
    return account(conf, "neutron") if conf.neutron.username else account(conf)


def network_hints(conf: cfg.ConfigOpts) -> str:
    """Where the role `network` listens. Raises Invalid."""
    from kilonova.network import hints

    place = str(conf.plane.hints or f"@kilonova-{conf.deployment_id}-network")
    try:
        hints.address(place)
    except ValueError as error:
        raise Invalid(f"Configuration: {str(error).replace('[kilonova]', '[plane]')}.") from None
    return place


def network_verify(conf: cfg.ConfigOpts) -> bool | str:
    """Of Networking's certificate."""
    return network_account(conf).verify


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneOptions:
    namespace: str | None
    tunnel_ip: str
    uplinks: dict[str, str]
    """Devices by flat network."""
    metadata: tuple[str, str] | None
    """(URL, secret)"""


def plane(conf: cfg.ConfigOpts) -> PlaneOptions:
    """One host's network plane. Raises Invalid."""
    url, secret = conf.plane.metadata_url, conf.neutron.metadata_proxy_shared_secret
    if url and not secret:
        raise Invalid("Configuration: [plane] metadata_url needs [neutron] metadata_proxy_shared_secret.")
    return PlaneOptions(
        namespace=conf.plane.namespace or None,
        tunnel_ip=conf.plane.tunnel_ip or conf.my_ip,
        uplinks=dict(conf.plane.uplinks),
        metadata=(without_version(url), secret) if url else None,
    )


def image_endpoint(conf: cfg.ConfigOpts) -> str | None:
    """Image's address without a version; None: the catalog's."""
    if conf.glance.endpoint_override:
        return without_version(conf.glance.endpoint_override)
    if conf.glance.api_servers:
        first = conf.glance.api_servers[0]
        return without_version(first if "://" in first else f"{conf.glance.protocol}://{first}")
    if conf.glance.host:
        host = f"[{conf.glance.host}]" if ":" in conf.glance.host else conf.glance.host
        return f"{conf.glance.protocol}://{host}:{conf.glance.port}"
    return None


def image_verify(conf: cfg.ConfigOpts) -> bool | str:
    return _verify(conf.glance.insecure, conf.glance.cafile)


def key_manager_verify(conf: cfg.ConfigOpts) -> bool | str:
    return _verify(not conf.barbican.verify_ssl, conf.barbican.verify_ssl_path)


APIS = ("osapi_compute", "metadata")


def enabled_apis(conf: cfg.ConfigOpts) -> list[str]:
    """Raises Invalid for one that is not here."""
    for name in (*conf.enabled_apis, *conf.enabled_ssl_apis):
        if name == "ec2":
            raise Invalid("Configuration: enabled_apis: there is no EC2 API; say osapi_compute,metadata.")
        if name not in APIS:
            raise Invalid(f"Configuration: enabled_apis: '{name}' is not known; known are {', '.join(APIS)}.")
    return list(conf.enabled_apis)


def compute_listener(conf: cfg.ConfigOpts) -> Listener:
    return Listener(
        address=conf.osapi_compute_listen,
        port=conf.osapi_compute_listen_port,
        certificate=_certificate(conf, "osapi_compute"),
    )


def metadata_listener(conf: cfg.ConfigOpts) -> Listener:
    return Listener(
        address=conf.metadata_listen, port=conf.metadata_listen_port, certificate=_certificate(conf, "metadata")
    )


def console_listener(conf: cfg.ConfigOpts) -> Listener:
    """TLS where [DEFAULT] cert and key (or ssl_only) ask for it."""
    certificate = usable("[DEFAULT] cert, key", (conf.cert, conf.key or conf.cert)) if conf.cert else None
    if conf.ssl_only and certificate is None:
        raise Invalid("Configuration: ssl_only needs [DEFAULT] cert.")
    return Listener(
        address=conf.vnc.novncproxy_host or "0.0.0.0", port=conf.vnc.novncproxy_port or 6080, certificate=certificate
    )


def console_url(conf: cfg.ConfigOpts) -> str:
    """Where the console proxy is taken to be when nothing says it: on this machine."""
    host = f"[{conf.my_ip}]" if ":" in conf.my_ip else conf.my_ip
    scheme = "https" if conf.cert else "http"
    return f"{scheme}://{host}:{conf.vnc.novncproxy_port or 6080}"


def log_path(conf: cfg.ConfigOpts, program: str) -> Path | None:
    """Where the role logs; None: standard error."""
    if not conf.log_file and not conf.log_dir:
        return None
    return Path(conf.log_dir or "") / (conf.log_file or f"{program}.log")


def log_level(conf: cfg.ConfigOpts) -> str:
    if conf.debug:
        return "DEBUG"
    return "INFO" if conf.verbose else "WARNING"


def _certificate(conf: cfg.ConfigOpts, api: str) -> tuple[str, str] | None:
    if api not in conf.enabled_ssl_apis:
        return None
    files = (conf.wsgi.ssl_cert_file, conf.wsgi.ssl_key_file)
    for option, file in zip(("ssl_cert_file", "ssl_key_file"), files, strict=True):
        if not file or not Path(file).is_file():
            raise Invalid(f"Configuration: enabled_ssl_apis = {api} needs [wsgi] {option}, a file that is there.")
    return usable("[wsgi] ssl_cert_file, ssl_key_file", files)


def _domain(identifier: str | None, name: str | None) -> dict[str, str] | None:
    if identifier:
        return {"id": identifier}
    return {"name": name} if name else None


def _verify(insecure: bool, cafile: str | None) -> bool | str:
    if insecure:
        return False
    if cafile is not None and not Path(cafile).is_file():
        raise Invalid(f"Configuration: cafile {cafile} does not exist.")
    return cafile or True


def without_version(url: str) -> str:
    url = url.rstrip("/")
    for version in ("/v2.0", "/v2", "/v3"):
        url = url.removesuffix(version)
    return url.rstrip("/")


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
