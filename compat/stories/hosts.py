"""Availability zones, hypervisors and services."""

from __future__ import annotations

from typing import Any

from compat.microversions import around, every
from compat.play import Play
from compat.stories.server_show import NOWHERE

AMOUNTS = frozenset(
    {
        "hypervisor_type",
        "hypervisor_version",
        "host_ip",
        "vcpus",
        "memory_mb",
        "local_gb",
        "vcpus_used",
        "memory_mb_used",
        "local_gb_used",
        "free_ram_mb",
        "free_disk_gb",
        "current_workload",
        "running_vms",
        "disk_available_least",
        "cpu_info",
        "uptime",
    }
)
NUMBERS = frozenset({"id"})


async def zones(play: Play) -> None:
    for token in ("admin", "member", "reader", "nobody"):
        for at in around(102):
            await play.ask("list", "availability-zones:list", "GET", "/os-availability-zone", at=at, token=token)
            await play.ask(
                "unknown parameter", "availability-zones:list", "GET", "/os-availability-zone?foo=1", at=at, token=token
            )
            await play.ask(
                "detail",
                "availability-zones:detail",
                "GET",
                "/os-availability-zone/detail",
                at=at,
                token=token,
                unordered={"availabilityZoneInfo"},
            )


async def hypervisors(play: Play) -> None:
    at_boundaries = every() if play.thorough else around(28, 33, 53, 75, 88, 102)
    server = await play.boot("server")
    for path in ("/os-hypervisors", "/os-hypervisors/detail", "/os-hypervisors/statistics"):
        for at in at_boundaries:
            await play.ask(
                path,
                f"hypervisors:{path.partition('visors')[2].strip('/') or 'list'}",
                "GET",
                path,
                at=at,
                loose=AMOUNTS | NUMBERS,
            )
    ids = {at: (await play.send("GET", "/os-hypervisors", at=at)).json()["hypervisors"] for at in ("2.52", "2.53")}
    for at in at_boundaries:
        item = ids["2.52" if int(at[2:]) < 53 else "2.53"][0]["id"]
        await play.ask("show", "hypervisors:show", "GET", f"/os-hypervisors/{item}", at=at, loose=AMOUNTS | NUMBERS)
        await play.ask(
            "uptime", "hypervisors:uptime", "GET", f"/os-hypervisors/{item}/uptime", at=at, loose=AMOUNTS | NUMBERS
        )
        wrong = ids["2.53" if int(at[2:]) < 53 else "2.52"][0]["id"]
        await play.ask("show by the other kind of id", "hypervisors:show", "GET", f"/os-hypervisors/{wrong}", at=at)
    number, uuid = ids["2.52"][0]["id"], ids["2.53"][0]["id"]
    host = ids["2.53"][0]["hypervisor_hostname"]
    for at in ("2.1", "2.52", "2.53", "2.104"):
        for what in (NOWHERE, "99", "abc"):
            await play.ask(f"show {what}", "hypervisors:show", "GET", f"/os-hypervisors/{what}", at=at)
            await play.ask(f"uptime {what}", "hypervisors:uptime", "GET", f"/os-hypervisors/{what}/uptime", at=at)
        await play.ask("search", "hypervisors:search", "GET", f"/os-hypervisors/{host}/search", at=at, loose=NUMBERS)
        await play.ask("search none", "hypervisors:search", "GET", "/os-hypervisors/zzz/search", at=at)
        await play.ask("servers none", "hypervisors:servers", "GET", "/os-hypervisors/zzz/servers", at=at)
    for query in (
        "limit=1",
        "limit=0",
        "limit=x",
        "limit=2",
        "marker=" + NOWHERE,
        "marker=x",
        "marker=1",
        "hypervisor_hostname_pattern=" + host,
        "hypervisor_hostname_pattern=zzz",
        "hypervisor_hostname_pattern=",
        "with_servers=false",
        "with_servers=x",
        "foo=bar",
        "hypervisor_hostname_pattern=a&limit=1",
        "limit=1&limit=2",
    ):
        for at in ("2.1", "2.32", "2.33", "2.52", "2.53", "2.74", "2.75", "2.104"):
            for path in ("/os-hypervisors", "/os-hypervisors/detail"):
                await play.ask(
                    f"{path}?{query.replace(host, '{host}')}",
                    "hypervisors:list",
                    "GET",
                    f"{path}?{query}",
                    at=at,
                    shape=True,
                )
    shown = await play.send("GET", f"/servers/{server}")
    home = shown.json()["server"]["OS-EXT-SRV-ATTR:hypervisor_hostname"]
    busy = next(item["id"] for item in ids["2.53"] if item["hypervisor_hostname"] == home)
    for at in ("2.53", "2.74", "2.75", "2.88", "2.104"):
        query = f"?hypervisor_hostname_pattern={home}&with_servers=true"
        await play.ask("with servers", "hypervisors:list", "GET", "/os-hypervisors" + query, at=at, loose=AMOUNTS)
        await play.ask(
            "detail with servers", "hypervisors:detail", "GET", "/os-hypervisors/detail" + query, at=at, loose=AMOUNTS
        )
        for flag in ("true", "false", "x"):
            path = f"/os-hypervisors/{busy}?with_servers={flag}"
            await play.ask(f"show with servers {flag}", "hypervisors:show", "GET", path, at=at, loose=AMOUNTS)
        await play.ask(
            "show, unknown parameter", "hypervisors:show", "GET", f"/os-hypervisors/{uuid}?foo=1", at=at, loose=AMOUNTS
        )
    for at in ("2.1", "2.52"):
        await play.ask("servers", "hypervisors:servers", "GET", f"/os-hypervisors/{home}/servers", at=at, loose=NUMBERS)
    for token in ("manager", "member", "reader", "nobody"):
        for path in ("/os-hypervisors", "/os-hypervisors/detail", f"/os-hypervisors/{uuid}"):
            await play.ask(f"as {path.replace(uuid, '{id}')}", "hypervisors:list", "GET", path, token=token)
        await play.ask("show as", "hypervisors:show", "GET", f"/os-hypervisors/{number}", at="2.1", token=token)
    await play.gone(server)


async def services(play: Play) -> None:
    at_boundaries = every() if play.thorough else around(11, 53, 69, 75, 102)
    for at in at_boundaries:
        await play.ask(
            "list",
            "services:list",
            "GET",
            "/os-services?binary=nova-compute",
            at=at,
            loose=NUMBERS,
            unordered={"services"},
        )
    for query in ("binary=x", "host=nohost", "foo=bar", "host=a&binary=b", "binary=a&binary=b", "limit=1"):
        for at in ("2.1", "2.74", "2.75", "2.104"):
            await play.ask(
                f"?{query}", "services:list", "GET", f"/os-services?{query}", at=at, shape=True, loose={"services"}
            )
    for token in ("manager", "member", "reader", "nobody"):
        await play.ask("as", "services:list", "GET", "/os-services", token=token)


async def services_update(play: Play) -> None:
    listed = (await play.send("GET", "/os-services?binary=nova-compute")).json()["services"]
    chosen = listed[0]
    host, path = chosen["host"], f"/os-services/{chosen['id']}"
    base: dict[str, Any] = {"host": host, "binary": "nova-compute"}
    # The numbers of the services before 2.53.
    old = {
        item["host"]: item["id"]
        for item in (await play.send("GET", "/os-services?binary=nova-compute", at="2.52")).json()["services"]
    }
    for at in ("2.1", "2.10", "2.11", "2.52", "2.53", "2.104"):
        for name, what, body in (
            ("disable", "disable", base),
            ("disable with reason", "disable-log-reason", base | {"disabled_reason": "why"}),
            ("disable without reason", "disable-log-reason", base),
            ("enable", "enable", base),
            ("disable, reason unasked", "disable", base | {"disabled_reason": "why"}),
            ("enable", "enable", base),
            ("force down", "force-down", base | {"forced_down": True}),
            ("force up", "force-down", base | {"forced_down": False}),
            ("force down text", "force-down", base | {"forced_down": "true"}),
            ("force up text", "force-down", base | {"forced_down": "False"}),
            ("force down unsaid", "force-down", base),
            ("unknown host", "enable", base | {"host": "nohost"}),
            ("unknown binary", "enable", base | {"binary": "nova-x"}),
            ("unknown action", "foo", base),
            ("no host", "enable", {"binary": "nova-compute"}),
            ("no body", "enable", None),
            ("empty reason", "disable-log-reason", base | {"disabled_reason": ""}),
            ("long reason", "disable-log-reason", base | {"disabled_reason": "x" * 256}),
            ("enable", "enable", base),
        ):
            await play.ask(name, "services:update", "PUT", f"/os-services/{what}", body, at=at, loose=NUMBERS)
        await play.ask("listed", "services:list", "GET", f"/os-services?host={host}", at=at, loose=NUMBERS)
    bodies: dict[str, Any] = {
        "disable": {"status": "disabled"},
        "disable with reason": {"status": "disabled", "disabled_reason": "why"},
        "enable": {"status": "enabled"},
        "force down": {"forced_down": True},
        "force up": {"forced_down": False},
        "force down text": {"forced_down": "true"},
        "force up text": {"forced_down": "no"},
        "reason only": {"disabled_reason": "x"},
        "enable with reason": {"status": "enabled", "disabled_reason": "x"},
        "empty": {},
        "wrong status": {"status": "foo"},
        "unknown": {"foo": 1},
        "long reason": {"status": "disabled", "disabled_reason": "x" * 256},
        "no body": None,
        "reason null": {"status": "disabled", "disabled_reason": None},
        "all": {"status": "disabled", "disabled_reason": "y", "forced_down": True},
        "back": {"status": "enabled", "forced_down": False},
        "empty reason": {"status": "disabled", "disabled_reason": ""},
        "again": {"status": "enabled"},
    }
    for at in ("2.52", "2.53", "2.69", "2.104"):
        for name, body in bodies.items():
            await play.ask(f"by id: {name}", "services:update", "PUT", path, body, at=at)
    for what in (NOWHERE, "99", "x"):
        for at in ("2.52", "2.53", "2.104"):
            await play.ask(
                f"put {what}", "services:update", "PUT", f"/os-services/{what}", {"status": "enabled"}, at=at
            )
            await play.ask(f"delete {what}", "services:delete", "DELETE", f"/os-services/{what}", at=at)
    scheduler = (await play.send("GET", "/os-services?binary=nova-scheduler")).json()["services"]
    if scheduler:
        await play.ask(
            "of a scheduler", "services:update", "PUT", f"/os-services/{scheduler[0]['id']}", {"status": "disabled"}
        )
    for token in ("manager", "member", "reader", "nobody"):
        await play.ask("as", "services:update", "PUT", path, {"status": "enabled"}, token=token)
        await play.ask("as", "services:delete", "DELETE", path, token=token)
    server = await play.boot("server", host=host)
    for at, identifier in (("2.1", old[host]), ("2.104", chosen["id"])):
        await play.ask("delete with servers", "services:delete", "DELETE", f"/os-services/{identifier}", at=at)
    await play.gone(server)
