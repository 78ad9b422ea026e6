"""Version documents: what a client reads first, with no token."""

from __future__ import annotations

from typing import Any

from kilonova.api.versions import MAX, MIN

_LINK = {"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"}
_MEDIA = "application/vnd.openstack.compute+json;version="

_VERSIONS: dict[str, dict[str, Any]] = {
    "v2.0": {
        "id": "v2.0",
        "status": "DEPRECATED",
        "version": "",
        "min_version": "",
        "updated": "2025-07-04T12:00:00Z",
        "path": "v2",
        "media-types": [{"base": "application/json", "type": f"{_MEDIA}2"}],
    },
    "v2.1": {
        "id": "v2.1",
        "status": "CURRENT",
        "version": str(MAX),
        "min_version": str(MIN),
        "updated": "2013-07-23T11:33:21Z",
        "path": "v2.1",
        "media-types": [{"base": "application/json", "type": f"{_MEDIA}2.1"}],
    },
}
_SHOWN = ("id", "status", "version", "min_version", "updated")


def has(version_id: str) -> bool:
    return version_id in _VERSIONS


def all_versions(base_url: str) -> dict[str, Any]:
    """`GET /`."""
    return {
        "versions": [
            {
                **{name: version[name] for name in _SHOWN},
                "links": [{"rel": "self", "href": f"{base_url}/{version['path']}/"}],
            }
            for version in _VERSIONS.values()
        ]
    }


def one_version(version_id: str, root: str) -> dict[str, Any]:
    """`GET /v2.1/` and `GET /v2/`. `root` is the URL that was asked, up to the version."""
    version = _VERSIONS[version_id]
    return {
        "version": {
            **{name: version[name] for name in _SHOWN},
            "links": [{"rel": "self", "href": f"{root}/"}, _LINK],
            "media-types": version["media-types"],
        }
    }


def choices(base_url: str, path: str) -> dict[str, Any]:
    """Any other path: 300, where it could have been meant."""
    return {
        "choices": [
            {
                "id": version["id"],
                "status": version["status"],
                "links": [{"rel": "self", "href": f"{base_url}/{version['path']}/{path.strip('/')}"}],
                "media-types": version["media-types"],
            }
            for version in _VERSIONS.values()
        ]
    }
