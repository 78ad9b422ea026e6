"""What the files of Debian's Identity, Image and Networking say of accounts with Identity."""

from __future__ import annotations

from tests.support.guide import PASSWORD


def account(section: str, user: str, more: str = "") -> str:
    """The section of a file in which a service finds its account. `more`: lines of this section alone."""
    return f"""
[{section}]
auth_url = http://controller01:35357
auth_type = password
project_domain_id = default
user_domain_id = default
project_name = service
username = {user}
password = {PASSWORD.replace("$", "$$")}
{more}"""


def authtoken(user: str) -> str:
    """The account with which a service checks tokens."""
    more = "www_authenticate_uri = http://controller01:5000\nmemcached_servers = 127.0.0.1:11211\n"
    return account("keystone_authtoken", user, more)
