"""Options of a deployment: database, broker, the other services, listeners, logs. The rest: `kilonova.config`."""

from __future__ import annotations

from oslo_config import cfg

DEFAULT: list[cfg.Opt] = [
    cfg.StrOpt("deployment_id", default="kilonova", help="Marks our guests on the hosts; never change it"),
    cfg.StrOpt("state_path", default="/var/lib/nova", help="Where a role keeps what must survive it"),
    cfg.StrOpt("transport_url", secret=True, help="rabbit://USER:PASSWORD@HOST[:PORT][,...][/VHOST]"),
    cfg.StrOpt("control_exchange", default="kilonova", help="Keeps deployments on one virtual host apart"),
    cfg.StrOpt(
        "host_identity", default="shared", choices=["shared", "required"], help="Whether each host is a broker's user"
    ),
    cfg.ListOpt("control_users", default=["openstack"], help="Users of the broker that are believed everything"),
    cfg.StrOpt("compute_driver", default="libvirt.LibvirtDriver", help="libvirt.LibvirtDriver, or sim"),
    cfg.ListOpt("enabled_apis", default=["osapi_compute", "metadata"], help="What `api` serves"),
    cfg.StrOpt("osapi_compute_listen", default="0.0.0.0", help="Address of the Compute API"),
    cfg.PortOpt("osapi_compute_listen_port", default=8774, help="Port of the Compute API"),
    cfg.IntOpt("osapi_compute_workers", default=1, min=1, help="Processes of the Compute API"),
    cfg.StrOpt("metadata_listen", default="0.0.0.0", help="Address of the metadata service"),
    cfg.PortOpt("metadata_listen_port", default=8775, help="Port of the metadata service"),
    cfg.IntOpt("metadata_workers", default=1, min=1, help="Processes of the metadata service"),
    cfg.ListOpt("enabled_ssl_apis", default=[], help="Those of enabled_apis that speak TLS"),
    cfg.StrOpt("cert", help="Certificate of the console proxy"),
    cfg.StrOpt("key", help="Its key, if that is not in the same file"),
    cfg.BoolOpt("ssl_only", default=False, help="Consoles by TLS only: refuse to start without cert"),
    cfg.BoolOpt("verbose", default=True, help="Log at level INFO; else at WARNING"),
    cfg.StrOpt("log_file", deprecated_name="logfile", help="Where the role logs; relative to log_dir"),
    cfg.StrOpt("log_dir", deprecated_name="logdir", help="Directory of the log, which is called after the role"),
    cfg.IntOpt("graceful_shutdown_timeout", default=10, min=0, help="Seconds that what is under way gets at SIGTERM"),
]
DATABASE: list[cfg.Opt] = [
    cfg.StrOpt("connection", secret=True, help="mysql://, mysql+pymysql:// or postgresql://USER:PASSWORD@HOST/NAME"),
    cfg.StrOpt("connection_parameters", help="More for the end of the URL, e.g. ssl_ca=/etc/ssl/ca.pem"),
    cfg.IntOpt("max_pool_size", default=10, min=1, help="Connections that each process keeps"),
    cfg.IntOpt("max_overflow", default=10, min=0, help="Connections beyond, for a while"),
    cfg.IntOpt("connection_recycle_time", default=600, deprecated_name="idle_timeout", help="Seconds until a new one"),
]
RABBIT: list[cfg.Opt] = [
    cfg.StrOpt("rabbit_host", default="localhost", help="Without transport_url: the broker"),
    cfg.PortOpt("rabbit_port", default=5672, help="Its port"),
    cfg.ListOpt("rabbit_hosts", default=[], help="Several: HOST or HOST:PORT"),
    cfg.StrOpt("rabbit_userid", default="guest", help="Who we are to it"),
    cfg.StrOpt("rabbit_password", default="guest", secret=True, help="Our password there"),
    cfg.StrOpt("rabbit_virtual_host", default="/", help="The virtual host there"),
    cfg.BoolOpt("ssl", default=False, deprecated_name="rabbit_use_ssl", help="Speak TLS"),
    cfg.StrOpt("ssl_ca_file", deprecated_name="kombu_ssl_ca_certs", help="Authorities that are believed"),
    cfg.StrOpt("ssl_cert_file", deprecated_name="kombu_ssl_certfile", help="Our certificate"),
    cfg.StrOpt("ssl_key_file", deprecated_name="kombu_ssl_keyfile", help="Its key"),
    cfg.IntOpt("heartbeat_timeout_threshold", default=10, min=1, help="Seconds between its signs of life"),
]


def _account(**old: list[str]) -> list[cfg.Opt]:
    """Who we are to Identity. `old`: further names of options."""

    def names(option: str) -> list[cfg.DeprecatedOpt]:
        return [cfg.DeprecatedOpt(name) for name in old.get(option, [])]

    return [
        cfg.StrOpt("auth_url", deprecated_opts=names("auth_url"), help="Identity's address"),
        cfg.StrOpt("auth_type", default="password", deprecated_name="auth_plugin", help="password, and nothing else"),
        cfg.StrOpt("username", deprecated_opts=[cfg.DeprecatedOpt("user-name"), *names("username")], help="Our name"),
        cfg.StrOpt("password", secret=True, deprecated_opts=names("password"), help="Our password"),
        cfg.StrOpt(
            "project_name", deprecated_opts=[cfg.DeprecatedOpt("tenant_name"), *names("project_name")], help="Project"
        ),
        cfg.StrOpt("user_domain_id", help="Domain of the user"),
        cfg.StrOpt("user_domain_name", help="The same by name"),
        cfg.StrOpt("project_domain_id", help="Domain of the project"),
        cfg.StrOpt("project_domain_name", help="The same by name"),
        cfg.StrOpt("default_domain_id", help="Domain of whatever names none"),
        cfg.StrOpt("default_domain_name", help="The same by name"),
        cfg.StrOpt("region_name", help="Where services are looked for in the catalog"),
        cfg.StrOpt("cafile", help="Authorities that are believed"),
        cfg.BoolOpt("insecure", default=False, help="Believe any certificate"),
    ]


AUTHTOKEN = [
    *_account(
        auth_url=["identity_uri"],
        username=["admin_user"],
        password=["admin_password"],
        project_name=["admin_tenant_name"],
    ),
    cfg.ListOpt("service_token_roles", default=["service"], help="Roles by one of which a service token counts"),
]
NEUTRON = [
    *_account(
        auth_url=["admin_auth_url"],
        username=["admin_username"],
        password=["admin_password"],
        project_name=["admin_tenant_name"],
    ),
    cfg.StrOpt("endpoint_override", deprecated_name="url", help="Networking's address, if not the catalog's"),
]
ACCOUNTS = ("keystone_authtoken", "neutron")
"""Groups with an account's options, which are read by `deployment.account`."""

GLANCE: list[cfg.Opt] = [
    cfg.ListOpt("api_servers", default=[], help="Image's addresses; the first one is used"),
    cfg.StrOpt("endpoint_override", help="Image's address, if not the catalog's"),
    cfg.StrOpt("host", help="Image's host"),
    cfg.PortOpt("port", default=9292, help="Its port, with `host`"),
    cfg.StrOpt("protocol", default="http", choices=["http", "https"], help="How to speak, with `host`"),
    cfg.StrOpt("cafile", help="Authorities that are believed"),
    cfg.BoolOpt("insecure", default=False, deprecated_name="api_insecure", help="Believe any certificate"),
]
BARBICAN: list[cfg.Opt] = [
    cfg.StrOpt("barbican_endpoint", help="The key manager's address, if not the catalog's"),
    cfg.StrOpt("barbican_region_name", help="Its region in the catalog"),
    cfg.BoolOpt("verify_ssl", default=True, help="Whether its certificate counts"),
    cfg.StrOpt("verify_ssl_path", help="Authorities that are believed"),
]
PLANE: list[cfg.Opt] = [
    cfg.StrOpt("hints", help="Where `network` hears Neutron's [kilonova] hints: @NAME (one machine) or HOST:PORT"),
    cfg.StrOpt("namespace", help="The network namespace with the guests' taps; the machine's own without it"),
    cfg.StrOpt("tunnel_ip", help="Where other hosts' VXLAN packets reach this one; my_ip without it"),
    cfg.DictOpt("uplinks", default={}, help="Devices by the flat networks that they lead to, e.g. public:eth1"),
    cfg.StrOpt("metadata_url", help="The metadata service, as this host reaches it, e.g. http://192.0.2.10:8775"),
]
CONCURRENCY: list[cfg.Opt] = [
    cfg.StrOpt("lock_path", deprecated_group="DEFAULT", help="Where the lock of a host's one agent is"),
]
CONDUCTOR: list[cfg.Opt] = [
    cfg.IntOpt("workers", default=1, min=1, help="Processes of the conductor"),
    cfg.IntOpt("concurrency", default=200, min=1, help="Operations that one process runs at a time"),
    cfg.IntOpt("lease", default=30, min=5, max=120, help="Seconds until a dead conductor's operations go on elsewhere"),
]
SCHEDULER: list[cfg.Opt] = [
    cfg.IntOpt("workers", default=1, min=1, help="Processes of the scheduler"),
]
WSGI: list[cfg.Opt] = [
    cfg.StrOpt("ssl_cert_file", deprecated_group="DEFAULT", help="Certificate of listeners with TLS"),
    cfg.StrOpt("ssl_key_file", deprecated_group="DEFAULT", help="Its key"),
]
CRYPTO: list[cfg.Opt] = [
    cfg.StrOpt("ca_path", deprecated_group="DEFAULT", help="Where nova-cert keeps its authority; STATE_PATH/CA"),
]
SIM: list[cfg.Opt] = [
    cfg.IntOpt("hosts", default=1, min=1, help="Simulated hosts of one process: HOST, or HOST-001 and so on"),
    cfg.IntOpt("vcpus", default=64, min=1, help="CPUs of each"),
    cfg.IntOpt("memory_mb", default=262_144, min=1, help="Memory of each, MiB"),
    cfg.IntOpt("local_gb", default=4_000, min=1, help="Disk of each, GiB"),
    cfg.DictOpt("durations", default={}, help="Seconds by verb, e.g. running:0.5,disks:0.2"),
    cfg.BoolOpt("download_images", default=True, help="Read images from Image, as hosts do"),
    cfg.IntOpt("numa_cells", default=1, min=1, help="NUMA cells of each, with equal parts of its CPUs and memory"),
    cfg.IntOpt("threads", default=1, min=1, help="Threads of each core"),
    cfg.ListOpt("huge_pages", default=[], help="SIZE:COUNT in each cell, e.g. 2048:512,1GB:4"),
    cfg.ListOpt("pci_devices", default=[], help="ADDRESS=VENDOR:PRODUCT or ...:TYPE of each; see [pci] device_spec"),
]

GROUPS: dict[str, list[cfg.Opt]] = {
    "DEFAULT": DEFAULT,
    "database": DATABASE,
    "oslo_messaging_rabbit": RABBIT,
    "keystone_authtoken": AUTHTOKEN,
    "neutron": NEUTRON,
    "glance": GLANCE,
    "barbican": BARBICAN,
    "plane": PLANE,
    "oslo_concurrency": CONCURRENCY,
    "conductor": CONDUCTOR,
    "scheduler": SCHEDULER,
    "wsgi": WSGI,
    "crypto": CRYPTO,
    "sim": SIM,
}
