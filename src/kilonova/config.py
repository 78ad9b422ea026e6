"""Configuration: oslo.config files with the names operators know, turned into settings once at the start.

Sections may repeat, `$my_ip` is filled in, a password may hold `$`. An option that
nobody reads is refused with the nearest known name: a typing error must not pass silently.
"""

from __future__ import annotations

import difflib
import logging
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from oslo_config import cfg

from kilonova import config_scheduler
from kilonova.api.settings import ApiSettings
from kilonova.config_options import GROUPS, QUOTA_OPTIONS
from kilonova.console.settings import ConsoleSettings, ProxySettings, ScreenSecurity
from kilonova.errors import Invalid
from kilonova.health import HealthSettings
from kilonova.metadata.settings import DYNAMIC, STATIC, MetadataSettings
from kilonova.metrics import MetricsSettings
from kilonova.numa import read_cpus
from kilonova.pci import read_aliases
from kilonova.service import certificates, foreign
from kilonova.settings import ComputeSettings, QuotaDefaults, SignatureRules
from kilonova.tracing import Tracer

_WEB = re.compile("https?://", re.IGNORECASE)


def load(files: Sequence[Path]) -> cfg.ConfigOpts:
    """Read the files, later ones over earlier. Raises Invalid naming the file, section and option at fault."""
    # Old names are told by `review`, as one line of a log; the library would write them to standard error.
    logging.getLogger("oslo_config").setLevel(logging.ERROR)
    conf = cfg.ConfigOpts()
    for group, options in GROUPS.items():
        conf.register_opts(options, group=None if group == "DEFAULT" else group)
    for path in files:
        if not path.is_file():
            raise Invalid(f"Configuration file {path} does not exist.")
        for finding in review(path):
            if finding.stops:
                raise Invalid(f"Configuration file {path}: {finding.text}")
    try:
        conf(args=[], project="kilonova", default_config_files=[str(path) for path in files])
    except (cfg.Error, ValueError) as error:
        raise Invalid(f"Configuration: {error}") from error
    for group, options in GROUPS.items():
        for option in options:
            try:
                conf[option.dest] if group == "DEFAULT" else conf[group][option.dest]
            except cfg.NoSuchOptError as error:
                name = error.opt_name
                raise Invalid(
                    f"Configuration: ${name} stands for the option '{name}', which there is not; for a $ write $$."
                ) from error
            except (cfg.Error, ValueError) as error:
                # The parser's own words name its classes before they come to the reason.
                reason = str(error).split("is not valid: ")[-1]
                raise Invalid(f"Configuration: option '{option.name}' in section [{group}]: {reason}") from error
    return conf


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one option of a file. `stops`: no role starts with it; `old`: honoured, by a name of old."""

    section: str
    name: str
    stops: bool
    text: str
    old: bool = False


def review(path: Path) -> list[Finding]:
    """What of a file is not honoured. Raises Invalid for one that is no configuration file."""
    sections: dict[str, dict[str, list[str]]] = {}
    try:
        cfg.ConfigParser(str(path), sections).parse()
    except cfg.ParseError as error:
        raise Invalid(f"Configuration file {path}: {error}") from error
    known, old_names = _known(), _old_names()
    found = []
    for section, options in sections.items():
        if section not in known and section not in foreign.FIXED and section not in foreign.WITHOUT_EFFECT:
            hint = _nearest(section, list(known))
            found.append(Finding(section, "", True, f"unknown section [{section}].{hint}"))
            continue
        for name, values in options.items():
            if name not in known.get(section, ()):
                found.append(_not_ours(section, name, values[-1], known.get(section, set())))
            elif (section, name) in old_names:
                text = f"[{section}] {name}: an old name of {old_names[section, name]}"
                found.append(Finding(section, name, False, text, old=True))
    return found


def _not_ours(section: str, name: str, value: str, known: set[str]) -> Finding:
    place = f"[{section}] {name}"
    fixed = foreign.FIXED.get(section, {}).get(name)
    if fixed is not None:
        if fixed.honoured(value):
            return Finding(section, name, False, f"{place}: as it always is here")
        return Finding(section, name, True, f"{place} = {value} is not honoured: {fixed.instead}.")
    if name in foreign.HARMLESS.get(section, ()):
        return Finding(section, name, False, f"{place}: without effect here")
    if section in foreign.WITHOUT_EFFECT:
        return Finding(section, name, False, f"{place}: without effect here ({foreign.WITHOUT_EFFECT[section]})")
    return Finding(
        section, name, True, f"unknown option '{name}' in section [{section}].{_nearest(name, sorted(known))}"
    )


def _known() -> dict[str, set[str]]:
    """The names that each section may have, old ones too."""
    known: dict[str, set[str]] = {group: set() for group in GROUPS}
    for group, options in GROUPS.items():
        for option in options:
            known[group] |= {option.name, option.dest}
            for old in option.deprecated_opts:
                known[old.group or group].add(old.name or option.name)
    return known


def _old_names() -> dict[tuple[str, str], str]:
    """Today's place and name of an option by section and old name."""
    names = {}
    for group, options in GROUPS.items():
        for option in options:
            for old in option.deprecated_opts:
                names[old.group or group, old.name or option.name] = f"[{group}] {option.name}"
    return {old: new for old, new in names.items() if new != f"[{old[0]}] {old[1]}"}


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f" Did you mean '{close[0]}'?" if close else ""


def api_settings(conf: cfg.ConfigOpts, *, identity_url: str) -> ApiSettings:
    """The HTTP layer's settings. Raises Invalid when the policy file named is not there."""
    policy_file = Path(conf.oslo_policy.policy_file) if conf.oslo_policy.policy_file else None
    if policy_file is not None and not policy_file.is_file():
        raise Invalid(f"Configuration: [oslo_policy] policy_file {policy_file} does not exist.")
    return ApiSettings(
        max_request_body_size=conf.oslo_middleware.max_request_body_size,
        enable_proxy_headers_parsing=conf.oslo_middleware.enable_proxy_headers_parsing,
        secure_proxy_ssl_header=conf.wsgi.secure_proxy_ssl_header,
        policy_file=policy_file,
        www_authenticate_uri=conf.keystone_authtoken.www_authenticate_uri or identity_url,
    )


def metadata_settings(conf: cfg.ConfigOpts) -> MetadataSettings:
    """The metadata service's settings. Raises Invalid for a target that is no NAME@URL, and an unknown provider."""
    unknown = set(conf.api.vendordata_providers) - {STATIC, DYNAMIC}
    if unknown:
        raise Invalid(f"Configuration: [api] vendordata_providers: {', '.join(sorted(unknown))} is unknown.")
    targets = [tuple(target.split("@", 1)) for target in conf.api.vendordata_dynamic_targets]
    wrong = [target for target in targets if len(target) != 2 or not target[0] or not _WEB.match(target[1])]
    if wrong:
        raise Invalid(f"Configuration: [api] vendordata_dynamic_targets: {'@'.join(wrong[0])!r} is no NAME@URL.")
    return MetadataSettings(
        service_metadata_proxy=conf.neutron.service_metadata_proxy,
        shared_secret=conf.neutron.metadata_proxy_shared_secret,
        cache_expiration=float(conf.api.metadata_cache_expiration),
        dhcp_domain=conf.api.dhcp_domain,
        vendordata_providers=tuple(conf.api.vendordata_providers),
        vendordata_file=Path(conf.api.vendordata_jsonfile_path) if conf.api.vendordata_jsonfile_path else None,
        vendordata_targets=tuple((name, url) for name, url in targets),
        vendordata_connect_timeout=float(conf.api.vendordata_dynamic_connect_timeout),
        vendordata_read_timeout=float(conf.api.vendordata_dynamic_read_timeout),
        vendordata_failure_fatal=conf.api.vendordata_dynamic_failure_fatal,
    )


def compute_settings(
    conf: cfg.ConfigOpts, *, deployment_id: str | None = None, check_rules: bool = True
) -> ComputeSettings:
    """The Compute domain's settings. `deployment_id`: whatever the file says. `check_rules`: of scheduling, too."""
    return ComputeSettings(
        deployment_id=deployment_id or conf.deployment_id,
        host=conf.host or socket.gethostname(),
        max_limit=conf.api.max_limit,
        compute_link_prefix=conf.api.compute_link_prefix,
        dhcp_domain=conf.api.dhcp_domain,
        default_availability_zone=conf.default_availability_zone,
        internal_service_availability_zone=conf.internal_service_availability_zone,
        default_schedule_zone=conf.default_schedule_zone,
        service_down_time=float(conf.service_down_time),
        report_interval=float(conf.report_interval),
        max_attempts=conf.scheduler.max_attempts,
        vif_plugging_timeout=float(conf.vif_plugging_timeout),
        vif_plugging_is_fatal=conf.vif_plugging_is_fatal,
        shutdown_timeout=float(conf.shutdown_timeout),
        reboot_timeout=float(conf.libvirt.wait_soft_reboot_seconds),
        pci_aliases=read_aliases(conf.pci.alias),
        reclaim_instance_interval=float(conf.reclaim_instance_interval),
        running_deleted_instance_action=conf.running_deleted_instance_action,
        running_deleted_instance_timeout=float(conf.running_deleted_instance_timeout),
        running_deleted_instance_poll_interval=float(conf.running_deleted_instance_poll_interval),
        resume_guests_state_on_host_boot=conf.resume_guests_state_on_host_boot,
        force_config_drive=conf.force_config_drive,
        password_length=conf.password_length,
        enable_instance_password=conf.api.enable_instance_password,
        instance_name_template=conf.instance_name_template,
        scheduler=config_scheduler.scheduler_options(conf, check_rules=check_rules),
        initial_cpu_allocation_ratio=conf.initial_cpu_allocation_ratio,
        initial_ram_allocation_ratio=conf.initial_ram_allocation_ratio,
        initial_disk_allocation_ratio=conf.initial_disk_allocation_ratio,
        cpu_allocation_ratio=conf.cpu_allocation_ratio,
        ram_allocation_ratio=conf.ram_allocation_ratio,
        disk_allocation_ratio=conf.disk_allocation_ratio,
        reserved_host_cpus=conf.reserved_host_cpus,
        reserved_host_memory_mb=conf.reserved_host_memory_mb,
        reserved_host_disk_mb=conf.reserved_host_disk_mb,
        signatures=SignatureRules(
            verify=conf.glance.verify_glance_signatures,
            check_certificates=conf.glance.enable_certificate_validation,
            trusted=tuple(conf.glance.default_trusted_certificate_ids),
        ),
        quota=QuotaDefaults(**{field: conf.quota[name] for field, name in QUOTA_OPTIONS.items()}),
    )


def cpu_sets(conf: cfg.ConfigOpts) -> tuple[frozenset[int] | None, frozenset[int] | None]:
    """CPUs that guests share, and those that they may have for themselves; None: not said. Raises Invalid."""
    sets = {"cpu_shared_set": conf.compute.cpu_shared_set, "cpu_dedicated_set": conf.compute.cpu_dedicated_set}
    found = []
    for name, text in sets.items():
        try:
            found.append(read_cpus(text) if text else None)
        except ValueError as error:
            raise Invalid(f"Configuration: [compute] {name} = {text}: {error}.") from error
    return found[0], found[1]


def metrics_settings(conf: cfg.ConfigOpts) -> MetricsSettings:
    """Where this process shows its metrics. Raises Invalid for a certificate that cannot be used."""
    files = metrics_certificate(conf)
    tls = certificates.context(_METRICS_CERTIFICATE, files) if files is not None else None
    return MetricsSettings(
        enabled=conf.prometheus.enabled, listen=conf.prometheus.listen, port=conf.prometheus.port, tls=tls
    )


_METRICS_CERTIFICATE = "[prometheus] ssl_cert_file, ssl_key_file"


def metrics_certificate(conf: cfg.ConfigOpts) -> certificates.Pair | None:
    """Of the metrics' listener. Raises Invalid for one that cannot be used."""
    if not conf.prometheus.ssl_cert_file:
        return None
    files = (conf.prometheus.ssl_cert_file, conf.prometheus.ssl_key_file or conf.prometheus.ssl_cert_file)
    return certificates.usable(_METRICS_CERTIFICATE, files)


def health_settings(conf: cfg.ConfigOpts) -> HealthSettings:
    """What `/healthcheck` says, and when it says no."""
    file = conf.healthcheck.disable_by_file_path
    return HealthSettings(detailed=conf.healthcheck.detailed, off_file=Path(file) if file else None)


def tracer(conf: cfg.ConfigOpts, role: str) -> Tracer | None:
    """What sends this process's spans, None where nothing is traced. Raises Invalid without the extra `otel`."""
    if not conf.tracing.otlp_endpoint:
        return None
    try:
        from kilonova.tracing.otel import over_http
    except ImportError as error:
        raise Invalid(
            "Configuration: [tracing] otlp_endpoint needs OpenTelemetry's SDK: pip install 'kilonova[otel]'"
        ) from error
    return over_http(conf.tracing.otlp_endpoint, role, conf.tracing.sample_ratio)


def console_settings(conf: cfg.ConfigOpts, *, proxy_url: str) -> ConsoleSettings:
    """What the API and consoleauth know of consoles; the proxy's pages are at `proxy_url` unless the file says so."""
    return ConsoleSettings(
        vnc_enabled=conf.vnc.enabled,
        vnc_url=conf.vnc.novncproxy_base_url or f"{proxy_url}/vnc_auto.html",
        serial_enabled=conf.serial_console.enabled,
        serial_url=conf.serial_console.base_url or f"{proxy_url}/serial.html",
        hosts_name=frozenset({"vnc", "serial"} - set(console_pages(conf))),
        token_ttl=float(conf.consoleauth.token_ttl),
        enforce_session_timeout=conf.consoleauth.enforce_session_timeout,
    )


def console_pages(conf: cfg.ConfigOpts) -> dict[str, str]:
    """By kind of console, the page that nova.conf names; the guide has it in the hosts' alone."""
    named = {"vnc": conf.vnc.novncproxy_base_url, "serial": conf.serial_console.base_url}
    return {kind: page for kind, page in named.items() if page}


def proxy_settings(conf: cfg.ConfigOpts) -> ProxySettings:
    """What a console proxy knows."""
    return ProxySettings(
        host=conf.vnc.novncproxy_host,
        port=conf.vnc.novncproxy_port,
        allowed_origins=tuple(conf.console.allowed_origins),
        idle_timeout=float(conf.console.idle_timeout),
        security=ScreenSecurity(
            schemes=tuple(conf.vnc.auth_schemes),
            authorities=conf.vnc.vencrypt_ca_certs,
            certificate=conf.vnc.vencrypt_client_cert,
            key=conf.vnc.vencrypt_client_key,
        ),
    )
