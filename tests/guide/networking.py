"""Debian's Networking with Linux bridges: its server and agents on the controller, the bridges' agent everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.guide.machine import Machine
from tests.guide.words import account, authtoken
from tests.support.guide import SECRET

if TYPE_CHECKING:
    from tests.guide.base import Base

_FILES = "--config-file /etc/neutron/neutron.conf --config-file /etc/neutron/plugins/ml2/ml2_conf.ini"
_NEUTRON = f"""
[DEFAULT]
core_plugin = ml2
service_plugins = router
allow_overlapping_ips = True
transport_url = rabbit://openstack:Password123$@controller01
auth_strategy = keystone
notify_nova_on_port_status_changes = True
notify_nova_on_port_data_changes = True
send_events_interval = 0
api_workers = 1
rpc_workers = 1
log_dir = /var/log/neutron
state_path = /var/lib/neutron
[oslo_concurrency]
lock_path = /var/lib/neutron/lock
[agent]
root_helper = sudo /usr/bin/neutron-rootwrap /etc/neutron/rootwrap.conf
[experimental]
linuxbridge = true
[database]
connection = mysql+pymysql://neutron:Password123$@controller01/neutron
{authtoken("neutron")}
{account("nova", "nova", "region_name = RegionOne")}
"""
_ML2 = """
[ml2]
type_drivers = flat,vxlan
tenant_network_types = vxlan
mechanism_drivers = linuxbridge,l2population
extension_drivers = port_security
[ml2_type_flat]
flat_networks = public
[ml2_type_vxlan]
vni_ranges = 1:1000
[securitygroup]
enable_ipset = True
"""


class Networking:
    def __init__(self, base: Base, controller: Machine, compute: Machine) -> None:
        self._base = base
        self._controller = controller
        self._compute = compute

    def start(self) -> None:
        it = self._controller
        self._base.add_service("neutron", "network", 9696)
        for machine in (it, self._compute):
            self._files(machine)
        it.write("/etc/neutron/l3_agent.ini", "[DEFAULT]\ninterface_driver = linuxbridge\n")
        it.write(
            "/etc/neutron/dhcp_agent.ini",
            "[DEFAULT]\ninterface_driver = linuxbridge\nenable_isolated_metadata = True\n"
            "dnsmasq_config_file = /etc/neutron/dnsmasq-neutron.conf\n",
        )
        # A ping before an address is given away delays parallel boots beyond what clients wait for.
        it.write("/etc/neutron/dnsmasq-neutron.conf", "no-ping\n")
        it.write(
            "/etc/neutron/metadata_agent.ini",
            "[DEFAULT]\nnova_metadata_host = controller01\nmetadata_workers = 1\n"
            f"metadata_proxy_shared_secret = {SECRET}\n",
        )
        it.run(f"neutron-db-manage {_FILES} upgrade head", user="neutron", timeout=600)
        it.spawn(f"neutron-server {_FILES}", "/var/log/neutron/server.out", user="neutron")
        it.until("bash -c 'exec 3<>/dev/tcp/controller01/9696'", 120, "tail -n 40 /var/log/neutron/*")
        for machine in (it, self._compute):
            self._agent(machine)
        own = "--config-file /etc/neutron/neutron.conf --config-file /etc/neutron"
        it.spawn(f"neutron-l3-agent {own}/l3_agent.ini", "/var/log/neutron/l3.out")
        it.spawn(f"neutron-dhcp-agent {own}/dhcp_agent.ini", "/var/log/neutron/dhcp.out")
        it.spawn(f"neutron-metadata-agent {own}/metadata_agent.ini", "/var/log/neutron/metadata.out")
        agents = ". /root/admin-openrc.sh; test $(openstack network agent list -f value -c Alive | grep -c True) = 5"
        it.until(
            agents, 180, ". /root/admin-openrc.sh; openstack network agent list; tail -n 20 /var/log/neutron/*.out"
        )

    def add(self, machine: Machine) -> None:
        """One more compute node's agent, up to its being seen alive."""
        self._files(machine)
        self._agent(machine)
        listed = f". /root/admin-openrc.sh; openstack network agent list --host {machine.name} -f value -c Alive"
        self._controller.until(f"{listed} | grep True", 180, f"{listed}; tail -n 20 /var/log/neutron/*.out")

    def _files(self, machine: Machine) -> None:
        machine.write("/etc/neutron/neutron.conf", _NEUTRON, owner="neutron", mode="640")
        machine.write("/etc/neutron/plugins/ml2/ml2_conf.ini", _ML2)
        machine.write(
            "/etc/neutron/plugins/ml2/linuxbridge_agent.ini",
            f"""
[linux_bridge]
physical_interface_mappings = public:eth1
[vxlan]
enable_vxlan = True
local_ip = {machine.address}
l2_population = True
[securitygroup]
enable_security_group = True
firewall_driver = iptables
""",
        )
        machine.run("sysctl -q -w net.bridge.bridge-nf-call-iptables=1 net.ipv4.ip_forward=1", check=False)

    def _agent(self, machine: Machine) -> None:
        machine.spawn(
            f"neutron-linuxbridge-agent {_FILES} --config-file /etc/neutron/plugins/ml2/linuxbridge_agent.ini",
            "/var/log/neutron/bridge.out",
        )
