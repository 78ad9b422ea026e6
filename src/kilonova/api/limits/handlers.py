"""GET /limits."""

from __future__ import annotations

from typing import Any

from kilonova.api.fields import Field, Out, QuerySchema, View
from kilonova.api.requests import Request
from kilonova.api.types import TEXT, multi
from kilonova.compute.quotas import ProjectQuotas, of_project

QUERY = QuerySchema(Field("tenant_id", multi(TEXT)), open_until="2.74")


def _limit(resource: str) -> Any:
    return lambda quotas, _: quotas.limits[resource]


def _none(quotas: ProjectQuotas, _: Any) -> int:
    return 0


ABSOLUTE = View(
    Out("maxTotalCores", _limit("cores")),
    Out("maxTotalInstances", _limit("instances")),
    Out("maxTotalRAMSize", _limit("ram")),
    Out("maxTotalKeypairs", _limit("key_pairs")),
    Out("maxServerMeta", _limit("metadata_items")),
    Out("maxImageMeta", _limit("metadata_items"), until="2.38"),
    Out("maxPersonality", _limit("injected_files"), until="2.56"),
    Out("maxPersonalitySize", _limit("injected_file_content_bytes"), until="2.56"),
    Out("maxServerGroups", _limit("server_groups")),
    Out("maxServerGroupMembers", _limit("server_group_members")),
    Out("maxTotalFloatingIps", _limit("floating_ips"), until="2.35"),
    Out("maxSecurityGroups", _limit("security_groups"), until="2.35"),
    Out("maxSecurityGroupRules", _limit("security_group_rules"), until="2.35"),
    Out("totalRAMUsed", "used.ram"),
    Out("totalCoresUsed", "used.cores"),
    Out("totalInstancesUsed", "used.instances"),
    Out("totalFloatingIpsUsed", _none, until="2.35"),
    Out("totalSecurityGroupsUsed", _none, until="2.35"),
    Out("totalServerGroupsUsed", "server_groups"),
)


async def show(request: Request) -> dict[str, Any]:
    project_id = request.context.project_id
    asked = request.query.last("tenant_id")
    if asked is not None:
        project_id = asked
        request.authorize("os_compute_api:limits:other_project")
    quotas = await of_project(request.runtime, project_id)
    return {"limits": {"rate": [], "absolute": ABSOLUTE.at(request.version)(quotas, None)}}
