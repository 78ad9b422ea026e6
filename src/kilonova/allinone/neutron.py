"""Neutron's API server as this cloud runs it: its configuration, with our mechanism driver, and how to start it."""

from __future__ import annotations

from pathlib import Path

from kilonova.allinone import external
from kilonova.allinone.files import write_private
from kilonova.allinone.secrets import Secrets
from kilonova.allinone.services import INSIDE, ServiceSpec, service_python, template_path
from kilonova.allinone.settings import CloudSettings, host_in_url

_CONF = """\
[DEFAULT]
debug = false
use_stderr = true
{quiet}
state_path = {directory}
api_paste_config = {paste}
auth_strategy = keystone
core_plugin = ml2
service_plugins = kilonova-router,qos,kilonova
# Agents are planes, which the role `network` speaks to; nothing of Neutron's own listens to a broker.
transport_url = fake://
rpc_workers = 0
dhcp_agent_notification = false
enable_traditional_dhcp = false
allow_overlapping_ips = true
dns_domain = {dns_domain}.
global_physnet_mtu = 1500
notify_nova_on_port_status_changes = true
notify_nova_on_port_data_changes = true
[database]
connection = sqlite:///{directory}/neutron.sqlite?timeout=30
[oslo_concurrency]
lock_path = {directory}/lock
[oslo_policy]
policy_file = {directory}/policy.yaml
[ml2]
type_drivers = flat,vxlan
project_network_types = vxlan
mechanism_drivers = kilonova
extension_drivers = port_security,qos,dns
[ml2_type_flat]
flat_networks = {external}
[ml2_type_vxlan]
# Every number is a row, read at each start.
vni_ranges = 1:4000
[kilonova]
hints = {hints}
[keystone_authtoken]
www_authenticate_uri = {identity_url}
auth_url = {identity_url}
auth_type = password
username = neutron
password = {neutron_password}
project_name = service
user_domain_name = Default
project_domain_name = Default
region_name = {region}
service_token_roles = service
service_token_roles_required = true
[nova]
auth_url = {identity_url}
auth_type = password
username = {nova_username}
password = {nova_password}
project_name = {nova_project}
user_domain_name = Default
project_domain_name = Default
region_name = {region}
endpoint_type = public
"""

_QUIET = """\
default_log_levels = sqlalchemy=WARN,alembic=WARN,oslo.messaging=ERROR,oslo_messaging=ERROR,keystonemiddleware=ERROR,\
dogpile=WARN,stevedore=CRITICAL,waitress.queue=ERROR,oslo_config=ERROR,novaclient=WARN,keystoneauth=WARN,urllib3=WARN,neutron=WARN,neutron.scheduler=ERROR,\
neutron.db.agentschedulers_db=ERROR,neutron.quota=ERROR,neutron.api.extensions=ERROR,neutron_lib=WARN,oslo_policy=ERROR,kilonova=INFO
"""


def hints_address(settings: CloudSettings) -> str:
    """Where Neutron tells that something has changed: a datagram socket without a file, known by the cloud's id."""
    return f"@kilonova-{settings.cloud_id}-network"


def network_spec(settings: CloudSettings, secrets: Secrets) -> ServiceSpec:
    """Neutron: writes its configuration file and says how to run it."""
    directory = settings.state_dir / "network"
    (directory / "lock").mkdir(parents=True, exist_ok=True)
    policy = directory / "policy.yaml"
    if not policy.exists():
        write_private(policy, "{}\n")
    python = service_python("neutron")
    config = directory / "etc/neutron.conf"
    text = _CONF.format(
        quiet=_QUIET,
        directory=directory,
        paste=python.parent.parent / "etc/neutron/api-paste.ini",
        dns_domain="novalocal",
        external=external.NAME,
        hints=hints_address(settings),
        identity_url=settings.identity_url,
        region=settings.region,
        neutron_password=secrets.neutron,
        nova_username=settings.service_username,
        nova_password=secrets.nova,
        nova_project=settings.service_project,
    )
    write_private(config, text)
    port = settings.ports.network
    return ServiceSpec(
        name="neutron",
        command=(str(python), "-P", str(INSIDE), "network"),
        stdin={
            "directory": str(directory),
            "config": str(config),
            "template": str(template_path("neutron")),
            "serve": True,
            "bind": settings.bind,
            "port": port,
            # With more, SQLite's writers meet ('database is locked'): Neutron begins its transactions as readers.
            "threads": 1,
        },
        health_url=f"http://{host_in_url(settings.host)}:{port}/",
        port=port,
    )


def source_root() -> Path:
    """What Neutron's environment is given to find our driver: the directory above this package."""
    return Path(__file__).parents[2]
