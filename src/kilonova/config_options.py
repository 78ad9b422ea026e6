"""All options by group, with the names operators know and their old ones; what is done with them: `config`."""

from __future__ import annotations

from oslo_config import cfg, types

from kilonova import config_scheduler
from kilonova.console.settings import NONE, VENCRYPT, ScreenSecurity
from kilonova.service.options import GROUPS as DEPLOYMENT
from kilonova.settings import QuotaDefaults

_DEFAULT: list[cfg.Opt] = [
    cfg.StrOpt("host", help="This host's name in the cloud; stable, whatever the machine is called"),
    cfg.StrOpt("my_ip", default="127.0.0.1", help="This host's address on the management network"),
    cfg.BoolOpt("debug", default=False, help="Log at level DEBUG"),
    cfg.StrOpt("instances_path", help="Where guests' disks are kept"),
    cfg.BoolOpt("force_raw_images", default=True, help="Keep images raw in the hosts' caches"),
    cfg.StrOpt("instance_name_template", default="instance-%08x", help="Names of domains, from the server's number"),
    cfg.StrOpt("default_availability_zone", default="nova", help="Zone of hosts that are in none"),
    cfg.StrOpt("internal_service_availability_zone", default="internal", help="Zone shown for services but compute"),
    cfg.StrOpt("default_schedule_zone", help="Zone of servers that ask for none"),
    cfg.IntOpt("service_down_time", default=60, min=2, help="Seconds without a heartbeat until a host counts as down"),
    cfg.IntOpt("report_interval", default=10, min=1, help="Seconds between heartbeats"),
    cfg.IntOpt("shutdown_timeout", default=60, min=0, help="Seconds a guest gets to power off"),
    cfg.IntOpt("password_length", default=12, min=3, help="Length of admin passwords made here"),
    cfg.BoolOpt("force_config_drive", default=False, help="Give every server a config drive"),
    cfg.FloatOpt("cpu_allocation_ratio", min=0.0, help="Virtual CPUs per physical one, from now on"),
    cfg.FloatOpt("ram_allocation_ratio", min=0.0, help="Virtual memory per physical, from now on"),
    cfg.FloatOpt("disk_allocation_ratio", min=0.0, help="Virtual disk per physical, from now on"),
    cfg.FloatOpt("initial_cpu_allocation_ratio", default=16.0, min=0.0, help="The same for hosts that are new"),
    cfg.FloatOpt("initial_ram_allocation_ratio", default=1.5, min=0.0, help="The same for hosts that are new"),
    cfg.FloatOpt("initial_disk_allocation_ratio", default=1.0, min=0.0, help="The same for hosts that are new"),
    cfg.IntOpt("reserved_host_cpus", default=0, min=0, help="CPUs kept for the host"),
    cfg.MultiStrOpt("reserved_huge_pages", default=[], help="Kept for the host, as node:0,size:2048,count:64"),
    cfg.IntOpt("reserved_host_memory_mb", default=512, min=0, help="Memory kept for the host, MiB"),
    cfg.IntOpt("reserved_host_disk_mb", default=0, min=0, help="Disk kept for the host, MiB"),
    cfg.BoolOpt("resume_guests_state_on_host_boot", default=False, help="Start again what ran when the host went down"),
    cfg.IntOpt("vif_plugging_timeout", default=300, min=0, help="Seconds a guest's ports get to be wired; 0: no wait"),
    cfg.BoolOpt("vif_plugging_is_fatal", default=True, help="Fail the boot when ports are not wired in time"),
    cfg.IntOpt("max_concurrent_builds", default=10, min=0, help="Guests built at once on a host; 0: no bound"),
    cfg.IntOpt(
        "reclaim_instance_interval", default=0, help="Seconds in which deletion can be taken back; 0 or less: not"
    ),
    cfg.StrOpt(
        "running_deleted_instance_action",
        default="reap",
        choices=["noop", "log", "shutdown", "reap"],
        help="What becomes of a guest whose server was deleted",
    ),
    cfg.IntOpt("running_deleted_instance_timeout", default=0, help="Seconds from the deletion until then"),
    cfg.IntOpt(
        "running_deleted_instance_poll_interval",
        default=1800,
        help="Seconds between looks for them on a host; 0: with each report of power states, less: never",
    ),
    cfg.IntOpt("sync_power_state_interval", default=600, help="Seconds between complete reports of power states"),
]
_API: list[cfg.Opt] = [
    cfg.IntOpt("max_limit", default=1000, min=1, help="Most items in one page of a list"),
    cfg.StrOpt("compute_link_prefix", help="What links to Compute begin with, if not with the request's address"),
    cfg.BoolOpt("enable_instance_password", default=True, help="Tell admin passwords in answers to create and rebuild"),
    cfg.StrOpt("dhcp_domain", default="novalocal", help="Domain of the host names that guests are told"),
    cfg.IntOpt("metadata_cache_expiration", default=15, min=0, help="Seconds for which metadata is kept"),
    cfg.ListOpt("vendordata_providers", default=["StaticJSON"], help="Of StaticJSON, DynamicJSON"),
    cfg.StrOpt("vendordata_jsonfile_path", help="The document of provider StaticJSON"),
    cfg.ListOpt("vendordata_dynamic_targets", default=[], help="NAME@URL of the services of provider DynamicJSON"),
    cfg.IntOpt("vendordata_dynamic_connect_timeout", default=5, min=3, help="Seconds to connect to such a service"),
    cfg.IntOpt("vendordata_dynamic_read_timeout", default=5, min=0, help="Seconds to wait for its answer"),
    cfg.BoolOpt("vendordata_dynamic_failure_fatal", default=False, help="Answer 500 when such a service fails"),
]
_NEUTRON: list[cfg.Opt] = [
    cfg.BoolOpt("service_metadata_proxy", default=False, help="Metadata is asked for by Networking's proxies"),
    cfg.StrOpt("metadata_proxy_shared_secret", default="", secret=True, help="With which those proxies sign"),
]
_COMPUTE: list[cfg.Opt] = [
    cfg.StrOpt(
        "provider_config_location",
        default="/etc/nova/provider_config/",
        help="Files (*.yaml) with resource classes and traits that this host has",
    ),
    cfg.StrOpt("cpu_shared_set", help="CPUs that guests share, e.g. 0-3,^2; all without cpu_dedicated_set, else none"),
    cfg.StrOpt("cpu_dedicated_set", help="CPUs that guests may have for themselves (hw:cpu_policy=dedicated)"),
]
_PCI: list[cfg.Opt] = [
    cfg.MultiStrOpt("alias", default=[], help="JSON: name, vendor_id, product_id, device_type of what flavors ask for"),
    cfg.MultiStrOpt(
        "device_spec",
        default=[],
        deprecated_name="passthrough_whitelist",
        help="JSON: vendor_id, product_id, address (with *) of devices that this host gives to guests",
    ),
]
_LIBVIRT: list[cfg.Opt] = [
    cfg.StrOpt("virt_type", default="auto", choices=["auto", "kvm", "qemu"], help="auto: kvm where the CPU can"),
    cfg.StrOpt("cpu_mode", choices=["host-model", "host-passthrough", "custom", "none"], help="How guests' CPUs look"),
    cfg.ListOpt("cpu_models", default=[], help="With cpu_mode=custom: models, best last"),
    cfg.ListOpt("hw_machine_type", default=[], help="Machine types by architecture, e.g. x86_64=q35"),
    cfg.StrOpt("connection_uri", help="Where libvirt is"),
    cfg.IntOpt("wait_soft_reboot_seconds", default=120, min=0, help="Seconds until a soft reboot becomes a hard one"),
    cfg.IntOpt("num_pcie_ports", default=8, min=0, max=28, help="Slots for hot-plug on machine type q35"),
    cfg.IntOpt("tb_cache_size", default=32, min=0, help="Translation cache of an emulated guest, MiB; 0: QEMU's own"),
    cfg.IntOpt("mem_stats_period_seconds", default=10, min=0, help="Between a guest's reports of its memory; 0: none"),
]
_IMAGE_CACHE: list[cfg.Opt] = [
    cfg.IntOpt(
        "remove_unused_original_minimum_age_seconds", default=86400, min=0, help="Age at which unused base images go"
    ),
    cfg.IntOpt("manager_interval", default=2400, help="Seconds between looks for unused base images; -1: never"),
]
_SECURITY = ScreenSecurity()
_VNC: list[cfg.Opt] = [
    cfg.BoolOpt("enabled", default=True, help="Give guests a VNC screen"),
    cfg.StrOpt(
        "server_listen", default="127.0.0.1", deprecated_name="vncserver_listen", help="Address screens listen at"
    ),
    cfg.StrOpt(
        "server_proxyclient_address",
        default="127.0.0.1",
        deprecated_name="vncserver_proxyclient_address",
        help="Where console proxies reach this host's screens",
    ),
    cfg.StrOpt("novncproxy_base_url", help="The page that shows screens, as users reach it"),
    cfg.StrOpt("novncproxy_host", help="Address the console proxy listens at"),
    cfg.PortOpt("novncproxy_port", help="Port the console proxy listens at"),
    cfg.ListOpt(
        "auth_schemes",
        default=list(_SECURITY.schemes),
        item_type=types.String(choices=[NONE, VENCRYPT]),
        help="How the console proxy speaks with screens: the first that a host offers",
    ),
    cfg.StrOpt("vencrypt_ca_certs", default=_SECURITY.authorities, help="Who signs hosts' certificates"),
    cfg.StrOpt("vencrypt_client_cert", default=_SECURITY.certificate, help="The console proxy's certificate"),
    cfg.StrOpt("vencrypt_client_key", default=_SECURITY.key, help="Its key"),
]
_SERIAL: list[cfg.Opt] = [
    cfg.BoolOpt("enabled", default=True, help="Let users at guests' serial lines"),
    cfg.StrOpt("base_url", help="The page that shows serial lines, as users reach it"),
    cfg.StrOpt("proxyclient_address", default="127.0.0.1", help="Where console proxies reach this host's serial lines"),
]
_CONSOLE: list[cfg.Opt] = [
    cfg.ListOpt("allowed_origins", default=[], help="Hosts (or host:port) whose pages may open consoles too"),
    cfg.IntOpt("idle_timeout", default=0, min=0, help="Seconds after which an idle console is closed; 0: never"),
]
_CONSOLEAUTH: list[cfg.Opt] = [
    cfg.IntOpt("token_ttl", default=600, min=0, help="Seconds for which a console's URL is good"),
    cfg.BoolOpt("enforce_session_timeout", default=False, help="End a console's session when its token expires"),
]
_GLANCE: list[cfg.Opt] = [
    cfg.BoolOpt("verify_glance_signatures", default=False, help="Boot only images whose signature is good"),
    cfg.BoolOpt("enable_certificate_validation", default=False, help="Of those, only with a trusted certificate"),
    cfg.ListOpt("default_trusted_certificate_ids", default=[], help="Trusted where an owner names no certificates"),
]
QUOTA_OPTIONS = {name: name for name in QuotaDefaults.__dataclass_fields__} | {
    "injected_file_path_bytes": "injected_file_path_length"
}
"""What nova.conf calls a limit, by the API's name for it."""
_QUOTA: list[cfg.Opt] = [
    cfg.IntOpt(
        option,
        default=getattr(QuotaDefaults(), name),
        min=-1,
        deprecated_opts=[cfg.DeprecatedOpt(f"quota_{option}", group="DEFAULT")],
        help=f"Limit on {name.replace('_', ' ')}; -1: none",
    )
    for name, option in QUOTA_OPTIONS.items()
]

_MIDDLEWARE: list[cfg.Opt] = [
    cfg.IntOpt("max_request_body_size", default=114688, min=1, help="Largest request, bytes"),
    cfg.BoolOpt(
        "enable_proxy_headers_parsing", default=False, help="Believe Forwarded and X-Forwarded-*: behind a proxy only"
    ),
]
_WSGI: list[cfg.Opt] = [
    cfg.StrOpt("secure_proxy_ssl_header", help="A header in which a proxy tells the scheme, as HTTP_X_FORWARDED_PROTO"),
    cfg.IntOpt("client_socket_timeout", default=900, min=0, help="Seconds until an idle connection is ended; 0: never"),
]
_PROMETHEUS: list[cfg.Opt] = [
    cfg.BoolOpt("enabled", default=True, help="Show metrics at a port of their own"),
    cfg.StrOpt("listen", default="127.0.0.1", help="Address at which metrics are shown, to whoever asks"),
    cfg.PortOpt("port", help="Port at which metrics are shown; without it each role has its own"),
    cfg.StrOpt("ssl_cert_file", help="Certificate of that listener: metrics by TLS"),
    cfg.StrOpt("ssl_key_file", help="Its key, if that is not in the same file"),
]
_TRACING: list[cfg.Opt] = [
    cfg.StrOpt("otlp_endpoint", help="Where spans are sent by OTLP over HTTP, e.g. http://collector:4318; none: off"),
    cfg.FloatOpt("sample_ratio", default=1.0, min=0.0, max=1.0, help="Share of the traces that is kept"),
]
_HEALTHCHECK: list[cfg.Opt] = [
    cfg.BoolOpt("detailed", default=False, help="Say in JSON what each check met, to whoever can ask"),
    cfg.StrOpt("disable_by_file_path", help="While this file is there, /healthcheck answers 503"),
]
_POLICY: list[cfg.Opt] = [
    cfg.StrOpt("policy_file", help="Rules that differ from the defaults"),
]
_AUTHTOKEN: list[cfg.Opt] = [
    cfg.StrOpt("www_authenticate_uri", deprecated_name="auth_uri", help="Identity's address for those without a token"),
    cfg.IntOpt("token_cache_time", default=300, min=0, help="Seconds for which a token's meaning is believed"),
]

GROUPS: dict[str, list[cfg.Opt]] = {
    "DEFAULT": _DEFAULT,
    "api": _API,
    "compute": _COMPUTE,
    "scheduler": config_scheduler.SCHEDULER,
    "filter_scheduler": config_scheduler.FILTER_SCHEDULER,
    "metrics": config_scheduler.METRICS,
    "libvirt": _LIBVIRT,
    "pci": _PCI,
    "image_cache": _IMAGE_CACHE,
    "vnc": _VNC,
    "serial_console": _SERIAL,
    "console": _CONSOLE,
    "consoleauth": _CONSOLEAUTH,
    "neutron": _NEUTRON,
    "quota": _QUOTA,
    "glance": _GLANCE,
    "prometheus": _PROMETHEUS,
    "tracing": _TRACING,
    "oslo_middleware": _MIDDLEWARE,
    "wsgi": _WSGI,
    "healthcheck": _HEALTHCHECK,
    "oslo_policy": _POLICY,
    "keystone_authtoken": _AUTHTOKEN,
}
for _group, _options in DEPLOYMENT.items():
    GROUPS[_group] = [*GROUPS.get(_group, ()), *_options]
