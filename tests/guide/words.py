"""What files of several services say."""

from __future__ import annotations

PASSWORD = "Password123$"
SECRET = "metadata-secret-of-the-guide"


def authtoken(user: str) -> str:
    """The section of a service's account."""
    return f"""
[keystone_authtoken]
www_authenticate_uri = http://controller01:5000
auth_url = http://controller01:35357
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = {user}
password = {PASSWORD.replace("$", "$$")}
memcached_servers = 127.0.0.1:11211
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
