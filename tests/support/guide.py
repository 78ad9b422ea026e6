"""What the installation guide writes into nova.conf: two files as it prints them, and its Networking chapter's part."""

from __future__ import annotations

PASSWORD = "Password123$"
SECRET = "metadata-secret-of-the-guide"
DOCTOR = "kilonova doctor --config-file /etc/nova/nova.conf"

CONTROLLER = """\
[database]
connection = mysql://nova:Password123$@controller01/nova

[DEFAULT]
rpc_backend = rabbit

[oslo_messaging_rabbit]
rabbit_host = controller01
rabbit_userid = openstack
rabbit_password = Password123$

[DEFAULT]
auth_strategy = keystone

[keystone_authtoken]
auth_uri = http://controller01:5000
auth_url = http://controller01:35357
auth_plugin = password
project_domain_id = default
user_domain_id = default
project_name = service
username = nova
password = Password123$

[DEFAULT]
my_ip = 192.168.101.11

[DEFAULT]
network_api_class = nova.network.neutronv2.api.API
security_group_api = neutron
linuxnet_interface_driver = nova.network.linux_net.NeutronLinuxBridgeInterfaceDriver
firewall_driver = nova.virt.firewall.NoopFirewallDriver

[vnc]
vncserver_listen = $my_ip
vncserver_proxyclient_address = $my_ip

[glance]
host = controller01

[oslo_concurrency]
lock_path = /var/lib/nova/tmp

[DEFAULT]
enabled_apis=osapi_compute,metadata

[DEFAULT]
verbose = True
"""

COMPUTE = """\
[DEFAULT]
rpc_backend = rabbit

[oslo_messaging_rabbit]
rabbit_host = controller01
rabbit_userid = openstack
rabbit_password = Password123$

[DEFAULT]
auth_strategy = keystone

[keystone_authtoken]
auth_uri = http://controller01:5000
auth_url = http://controller01:35357
auth_plugin = password
project_domain_id = default
user_domain_id = default
project_name = service
username = nova
password = Password123$

[DEFAULT]
my_ip = 192.168.101.21

[DEFAULT]
network_api_class = nova.network.neutronv2.api.API
security_group_api = neutron
linuxnet_interface_driver = nova.network.linux_net.NeutronLinuxBridgeInterfaceDriver
firewall_driver = nova.virt.firewall.NoopFirewallDriver

[vnc]
enabled = true
vncserver_listen = 0.0.0.0
vncserver_proxyclient_address = $my_ip
novncproxy_base_url = http://controller01:6080/vnc_auto.html

[glance]
host = controller01

[oslo_concurrency]
lock_path = /var/lib/nova/tmp

[DEFAULT]
verbose = True

[libvirt]
virt_type = qemu
"""

NEUTRON_OF_COMPUTE = f"""
[neutron]
url = http://controller01:9696
auth_url = http://controller01:35357
auth_plugin = password
project_domain_id = default
user_domain_id = default
region_name = RegionOne
project_name = service
username = neutron
password = {PASSWORD}
"""
PROXY_OF_METADATA = f"service_metadata_proxy = True\nmetadata_proxy_shared_secret = {SECRET}\n"
"""Of the controller's file alone."""
