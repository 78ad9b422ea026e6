"""Identity, the catalog's addresses of Compute, Image and Networking: each asked as this service would ask."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from kilonova.clients.identity import IdentityClient
from kilonova.clients.tls import trust
from kilonova.doctor.findings import Finding, ok, warning, wrong
from kilonova.doctor.roles import BAD_SKEW
from kilonova.doctor.site import Site
from kilonova.errors import Unavailable
from kilonova.service import deployment
from kilonova.service.deployment import Account
from kilonova.service.parts import session_of

PATIENCE = 10.0
DATE_SKEW = 5.0
"""Seconds; the header that is compared has whole ones, and takes its way."""
_NEEDED = ("binding", "security-group")
"""Extensions of Networking without which no server gets a port."""


async def look(site: Site) -> tuple[list[Finding], bool]:
    """And whether Networking has Kilonova's driver, so that the hosts have planes."""
    account = site.account
    if account is None:
        return [ok("identity", "no account is named: of the roles only nova-compute and the like do without")], False
    async with _session(account) as identity:
        try:
            answer = await identity.ask(
                "GET", "/auth/tokens", headers={"X-Subject-Token": await identity.service_token()}
            )
            document = answer.json()["token"]
        except (Unavailable, ValueError, KeyError) as error:
            return [_refused(site, "identity", account, "keystone_authtoken", error)], False
        found = [_who(account, document), *_clock(answer)]
        found += await _compute(site, document.get("catalog", []), account, await identity.service_token())
        found.append(await _image(site, identity, account))
        own = False
        if site.network_account is not None:
            more, own = await _networking(site, site.network_account)
            found += more
        elif site.database is not None:
            found.append(ok("networking", "[neutron] names none: servers have no ports"))
        if site.conf.neutron.service_metadata_proxy and not site.conf.neutron.metadata_proxy_shared_secret:
            text = "[neutron] service_metadata_proxy without a shared secret: whoever reaches 8775 can be any guest"
            fix = f"[neutron] metadata_proxy_shared_secret in {site.name}, and in Networking's metadata_agent.ini"
            found.append(wrong("metadata", text, fix))
        return found, own


@contextlib.asynccontextmanager
async def _session(account: Account) -> AsyncIterator[IdentityClient]:
    client = session_of(account, timeout=PATIENCE)
    try:
        yield client
    finally:
        await client.close()


def _refused(site: Site, check: str, account: Account, group: str, error: Exception) -> Finding:
    details = getattr(error, "details", None) or repr(error)
    who = f"user '{account.username}', project '{account.project}' at {account.url}"
    if ": 401" in details:
        fix = f"username, password, project and domains of [{group}] in {site.name}, or: openstack user set --password"
        return wrong(check, f"{who}: refused", fix)
    if "CERTIFICATE" in details.upper():
        return wrong(check, f"{account.url}: {details}", f"[{group}] cafile in {site.name}, or Identity's certificate")
    return wrong(check, f"{account.url}: {details}", f"start Identity, or correct [{group}] auth_url in {site.name}")


def _who(account: Account, document: dict[str, Any]) -> Finding:
    roles = sorted(role["name"] for role in document.get("roles", ()))
    who = f"user '{account.username}' in project '{account.project}' at {account.url}"
    if "admin" in map(str.lower, roles):
        return ok("identity", f"{who}: {', '.join(roles)}")
    fix = f"openstack role add --project {account.project} --user {account.username} admin"
    return wrong("identity", f"{who} has no role 'admin'", fix)


def _clock(answer: httpx.Response) -> list[Finding]:
    try:
        theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return []
    ahead = time.time() - theirs
    text = f"this machine's is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} Identity's"
    if abs(ahead) <= DATE_SKEW:
        return [ok("clock: Identity", text)]
    make = wrong if abs(ahead) > BAD_SKEW else warning
    return [make("clock: Identity", text, "run chrony (or another NTP client) on both")]


async def _compute(site: Site, catalog: list[dict[str, Any]], account: Account, token: str) -> list[Finding]:
    if site.database is None:
        return []
    addresses: dict[str, list[str]] = {}
    for service in catalog:
        for endpoint in service.get("endpoints", ()):
            region = endpoint.get("region_id", endpoint.get("region"))
            if service["type"] == "compute" and account.region in (None, region):
                addresses.setdefault(endpoint["url"], []).append(endpoint["interface"])
    if not addresses:
        fix = "openstack service create --name nova compute; openstack endpoint create for public, internal, admin"
        return [wrong("endpoint: compute", "Identity's catalog has none" + _region(account), fix)]
    found = []
    for url, interfaces in addresses.items():
        what = f"{', '.join(sorted(interfaces))} {url}"
        failure = await _get(f"{url.rstrip('/')}/limits", token, account.verify)
        if failure is None:
            found.append(ok("endpoint: compute", what))
        else:
            fix = "openstack endpoint set --url http://HOST:8774/v2.1, or start nova-api there"
            if failure.startswith("401"):
                fix = "[keystone_authtoken] of the API that answers there: it asks another Identity"
            found.append(wrong("endpoint: compute", f"{what}: {failure}", fix))
    return found


def _region(account: Account) -> str:
    return f" in region {account.region}" if account.region else ""


async def _image(site: Site, identity: IdentityClient, account: Account) -> Finding:
    url = site.image or await identity.endpoint("image", account.region)
    if url is None:
        fix = f"openstack service create image and its endpoints, or [glance] api_servers in {site.name}"
        return wrong("image", "Identity's catalog has no service 'image'" + _region(account), fix)
    verify = account.verify if site.image is None else deployment.image_verify(site.conf)
    address = f"{deployment.without_version(url)}/v2/images?limit=1"
    failure = await _get(address, await identity.service_token(), verify)
    if failure is None:
        return ok("image", deployment.without_version(url))
    return wrong("image", f"{url}: {failure}", f"start Image, or correct [glance] in {site.name}")


async def _networking(site: Site, account: Account) -> tuple[list[Finding], bool]:
    async with _session(account) as identity:
        try:
            url = site.network or await identity.endpoint("network", account.region)
            token = await identity.service_token()
        except Unavailable as error:
            return [_refused(site, "networking", account, "neutron", error)], False
        if url is None:
            fix = f"openstack service create network and its endpoints, or [neutron] endpoint_override in {site.name}"
            text = "Identity's catalog has no service 'network'" + _region(account)
            return [wrong("networking", text, fix)], False
        base = deployment.without_version(url)
        answer = await _ask(f"{base}/v2.0/extensions", token, account.verify)
        fix = f"start Networking, or correct [neutron] in {site.name}"
        if isinstance(answer, str):
            return [wrong("networking", f"{base}: {answer}", fix)], False
        aliases = {extension["alias"] for extension in answer.get("extensions", ())}
        if missing := [alias for alias in _NEEDED if alias not in aliases]:
            text = f"{base} lacks the extensions {', '.join(missing)}"
            return [wrong("networking", text, "core_plugin = ml2, and its extension_drivers, in neutron.conf")], False
        found = [ok("networking", base)]
        own = "plane-report" in aliases
        listed = await _ask(f"{base}/v2.0/agents", token, account.verify)
        if isinstance(listed, str):
            # A Networking without agents of its own may not list any.
            listed = {"agents": []}
        return [*found, _agents(listed.get("agents", []), own=own)], own


def _agents(agents: list[dict[str, Any]], *, own: bool) -> Finding:
    check = "networking: agents"
    dead = [f"{agent['binary']} on {agent['host']}" for agent in agents if not agent.get("alive")]
    if dead:
        fix = "systemctl start them there; for what is gone for good: openstack network agent delete"
        return warning(check, f"not alive: {', '.join(dead[:10])}" + (" and more" if len(dead) > 10 else ""), fix)
    if agents:
        return ok(check, f"{len(agents)} alive")
    if own:
        return ok(check, "none: Kilonova's planes do their work")
    fix = "neutron-linuxbridge-agent on each host, or Kilonova's driver and planes (docs/networking.md)"
    return warning(check, "there is none, and no plane of Kilonova's", fix)


async def _get(url: str, token: str, verify: bool | str) -> str | None:
    answer = await _ask(url, token, verify)
    return answer if isinstance(answer, str) else None


async def _ask(url: str, token: str, verify: bool | str) -> dict[str, Any] | str:
    """The document, or in words why there is none."""
    try:
        async with httpx.AsyncClient(timeout=PATIENCE, verify=trust(verify)) as http:
            answer = await http.get(url, headers={"X-Auth-Token": token})
        if answer.status_code != 200:
            return f"{answer.status_code} {answer.reason_phrase}"
        document = answer.json()
        return document if isinstance(document, dict) else "answers something else"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return str(error) or type(error).__name__
    except ValueError:
        return "answers something else"
