"""Microversions: which there are, how a request asks for one, and what changed where.

A handler compares `request.version` with the names below, never with numbers of its own.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from kilonova.api.errors import HttpError
from kilonova.errors import Invalid


class Version(NamedTuple):
    """A microversion. The legacy path (`/v2`) asks for LEGACY, which lies below every other."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


def parse(text: str) -> Version:
    """`"2.26"` as a Version. Raises ValueError for anything else."""
    if not _FORMAT.match(text):
        raise ValueError(text)
    major, minor = text.split(".")
    return Version(int(major), int(minor))


_FORMAT = re.compile(r"^[1-9]\d{0,8}\.(0|[1-9]\d{0,8})$", re.ASCII)

LEGACY = Version(2, 0)
MIN = Version(2, 1)
CONSOLE_TOKENS_OF_EVERY_TYPE = Version(2, 31)
MAX = Version(2, 104)

KEYPAIR_TYPES = Version(2, 2)
SERVER_EXTENDED_ATTRIBUTES = Version(2, 3)
IP6_FILTER_FOR_ALL = Version(2, 5)
REMOTE_CONSOLES = Version(2, 6)
NO_ACCESS_ON_PUBLIC_FLAVORS = Version(2, 7)
SERVER_LOCKED = Version(2, 9)
KEYPAIR_USER_ID = Version(2, 10)
SERVICE_FORCED_DOWN = Version(2, 11)
SERVER_HOST_STATUS = Version(2, 16)
CRASH_DUMP = Version(2, 17)
SERVER_DESCRIPTION = Version(2, 19)
ACTIONS_OF_DELETED_SERVERS = Version(2, 21)
MIGRATION_LINKS = Version(2, 23)
SERVER_TAGS = Version(2, 26)
HYPERVISOR_CPU_INFO_OBJECT = Version(2, 28)
DEVICE_TAGS = Version(2, 32)
HYPERVISOR_PAGING = Version(2, 33)
KEYPAIR_PAGING = Version(2, 35)
NO_PROXIES = Version(2, 36)
NETWORKS_REQUIRED = Version(2, 37)
INVALID_STATUS_REFUSED = Version(2, 38)
NO_IMAGE_METADATA = Version(2, 39)
USAGE_PAGING = Version(2, 40)
DEVICE_TAGS_AGAIN = Version(2, 42)
NO_HOSTS = Version(2, 43)
SERVER_FLAVOR_EMBEDDED = Version(2, 47)
STANDARD_DIAGNOSTICS = Version(2, 48)
ACTION_EVENTS_FOR_ALL = Version(2, 51)
CREATE_WITH_TAGS = Version(2, 52)
UUIDS_FOR_HOSTS = Version(2, 53)
REBUILD_KEY_NAME = Version(2, 54)
FLAVOR_DESCRIPTION = Version(2, 55)
NO_PERSONALITY = Version(2, 57)
ACTIONS_PAGING = Version(2, 58)
MIGRATIONS_PAGING = Version(2, 59)
FLAVOR_EXTRA_SPECS = Version(2, 61)
ACTION_EVENTS_HOST = Version(2, 62)
TRUSTED_CERTIFICATES = Version(2, 63)
SERVER_GROUP_RULES = Version(2, 64)
CHANGES_BEFORE = Version(2, 66)
VOLUME_TYPE = Version(2, 67)
PARTIAL_RESULTS = Version(2, 69)
INTERFACE_TAG_SHOWN = Version(2, 70)
SERVER_GROUPS_SHOWN = Version(2, 71)
LOCKED_REASON = Version(2, 73)
CREATE_ON_HOST = Version(2, 74)
UNIFORM_VIEWS = Version(2, 75)
"""Unknown parameters refused in more places; views of update and rebuild as of show."""
MIGRATIONS_BY_OWNER = Version(2, 80)
FILTERS_FOR_ALL = Version(2, 83)
ACTION_EVENTS_DETAILS = Version(2, 84)
EXTRA_SPECS_VALIDATED = Version(2, 86)
HYPERVISOR_WITHOUT_RESOURCES = Version(2, 88)
SERVER_HOSTNAME = Version(2, 90)
KEYPAIR_IMPORT_ONLY = Version(2, 92)
SERVER_FQDN = Version(2, 94)
PINNED_ZONE_SHOWN = Version(2, 96)
IMAGE_PROPERTIES_SHOWN = Version(2, 98)
SCHEDULER_HINTS_SHOWN = Version(2, 100)
STRICT_QUERIES = Version(2, 102)
"""Unknown query parameters refused everywhere; flavors without rxtx_factor, filtered by name."""
NO_VOLUMES_BOOT = Version(2, 103)
PINNED_ZONE_UPDATE = Version(2, 104)

_ALL = {str(version): version for version in (Version(2, minor) for minor in range(MIN.minor, MAX.minor + 1))}
_ALL_BYTES = {text.encode(): version for text, version in _ALL.items()} | {b"latest": MAX}
_ALL_SERVICE = {b"compute " + text: version for text, version in _ALL_BYTES.items()}

SERVICE_HEADER = b"openstack-api-version"
OLD_HEADER = b"x-openstack-nova-api-version"


class NotAcceptable(HttpError):
    """A well-formed version that is not served; the answer still names it in its headers."""

    def __init__(self, version: Version) -> None:
        super().__init__(406, f"Version {version} is not supported by the API. Minimum is {MIN} and maximum is {MAX}.")
        self.version = version


def negotiate(headers: dict[bytes, bytes]) -> Version:
    """The version that a request asks for.

    `OpenStack-API-Version: compute X.Y` (several services may stand there, by commas) wins over
    `X-OpenStack-Nova-API-Version: X.Y`; neither means the lowest. Raises Invalid for what is no
    version and NotAcceptable for one that is not served.
    """
    value = headers.get(SERVICE_HEADER)
    if value is not None:
        known = _ALL_SERVICE.get(value)
        if known is not None:
            return known
        asked = _of_service(value.decode("latin-1"))
        if asked is not None:
            return _served(asked)
    value = headers.get(OLD_HEADER)
    if value is None:
        return MIN
    return _ALL_BYTES.get(value) or _served(value.decode("latin-1").split(",")[-1].strip())


def _of_service(value: str) -> str | None:
    """The version of `compute` in a list like `identity 3.0, compute 2.10`; of several the last."""
    for part in reversed(value.split(",")):
        words = part.strip().split(None, 1)
        if len(words) == 2 and words[0].lower() == "compute":
            return words[1].strip()
    return None


def _served(text: str) -> Version:
    if text == "latest":
        return MAX
    try:
        version = parse(text)
    except ValueError:
        raise Invalid(f"API Version String {text} is of invalid format. Must be of format MajorNum.MinorNum.") from None
    if not MIN <= version <= MAX:
        raise NotAcceptable(version)
    return version
