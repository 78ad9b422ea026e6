"""What users' clients read: clouds.yaml and openrc in the state directory."""

from __future__ import annotations

from pathlib import Path

from kilonova.allinone.files import write_private
from kilonova.allinone.secrets import Secrets
from kilonova.allinone.settings import CloudSettings

_CLOUD = """\
  {name}:
    auth:
      auth_url: {auth_url}
      username: {user}
      password: {password}
      project_name: {user}
      user_domain_name: Default
      project_domain_name: Default
    region_name: {region}
    identity_api_version: 3
    interface: public
"""

_OPENRC = """\
# . {path}: the admin of this cloud, for clients that read the environment.
unset OS_CLOUD OS_TOKEN OS_SYSTEM_SCOPE
export OS_AUTH_URL={auth_url}
export OS_USERNAME=admin
export OS_PASSWORD={password}
export OS_PROJECT_NAME=admin
export OS_USER_DOMAIN_NAME=Default
export OS_PROJECT_DOMAIN_NAME=Default
export OS_REGION_NAME={region}
export OS_IDENTITY_API_VERSION=3
export OS_INTERFACE=public
"""


def clouds_yaml_path(state_dir: Path) -> Path:
    """Where the clients' file lies."""
    return state_dir / "clouds.yaml"


def write_client_files(settings: CloudSettings, secrets: Secrets) -> None:
    """Clouds `kilonova` (admin of project admin) and `kilonova-demo` (a member of project demo)."""
    common = {"auth_url": settings.identity_url, "region": settings.region}
    clouds = [
        _CLOUD.format(name="kilonova", user="admin", password=secrets.admin, **common),
        _CLOUD.format(name="kilonova-demo", user="demo", password=secrets.demo, **common),
    ]
    write_private(clouds_yaml_path(settings.state_dir), "clouds:\n" + "".join(clouds))
    openrc = settings.state_dir / "openrc"
    write_private(openrc, _OPENRC.format(path=openrc, password=secrets.admin, **common))
