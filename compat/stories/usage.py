"""Usage, audit log, hosts, migrations, diagnostics, topology."""

from __future__ import annotations

from compat.microversions import around, every
from compat.play import Play
from compat.stories.server_show import NOWHERE

TOKENS = ("admin", "manager", "member", "reader", "other", "nobody")
TIMES = frozenset(
    {
        "hours", "uptime", "total_hours", "total_local_gb_usage", "total_vcpus_usage", "total_memory_mb_usage",
        "start", "stop",
    }
)  # fmt: skip
USAGE = "/os-simple-tenant-usage"
# By id, which nobody chooses.
ANY_ORDER = {"tenant_usages", "server_usages"}


async def tenant(play: Play) -> None:
    server, other = await play.boot("server", token="member"), await play.boot("other", token="other", flavorRef="2")
    gone = await play.boot("gone", token="member")
    await play.gone(gone)
    own = f"{USAGE}/{play.side.project}"
    period = "start=2020-01-01T00:00:00"
    for at in every() if play.thorough else around(40, 75, 102):
        for query in ("", f"?{period}", f"?{period}&detailed=1", f"?{period}&detailed=true", f"?{period}&foo=1"):
            await play.ask(
                f"list {query}",
                "usage:list",
                "GET",
                USAGE + query,
                at=at,
                loose=TIMES,
                unordered=ANY_ORDER,
                shape=True,
            )
        for query in ("", f"?{period}", f"?{period}&detailed=0", f"?{period}&foo=1"):
            await play.ask(
                f"show {query}", "usage:show", "GET", own + query, at=at, loose=TIMES, unordered=ANY_ORDER,
                shape=True,
            )  # fmt: skip
        await play.ask("show nobody's", "usage:show", "GET", f"{USAGE}/someone?{period}", at=at)
        for query in ("limit=0", "limit=x", "limit=-1", f"marker={NOWHERE}", "marker=x", "limit=1&limit=x"):
            await play.ask(
                f"page {query}",
                "usage:list",
                "GET",
                f"{USAGE}?{period}&{query}",
                at=at,
                shape=True,
                unordered=ANY_ORDER,
            )
            await play.ask(
                f"page own {query}",
                "usage:show",
                "GET",
                f"{own}?{period}&{query}",
                at=at,
                shape=True,
                unordered=ANY_ORDER,
            )
    for query in (
        "start=x", "end=x", "start=2020-01-01", "start=2020-01-01 00:00:00", "start=2020-01-01 00:00:00.0",
        "start=2020-01-01T00:00:00.123", "start=2020-01-01T00:00:00Z", "start=", "end=", "end=2020-01-01T00:00:00",
        "start=2020-01-02T00:00:00&end=2020-01-01T00:00:00", "start=2020-01-01T00:00:00&end=2020-01-01T00:00:00",
        "start=2020-01-01T00:00:00&end=2999-01-01T00:00:00", "start=2999-01-01T00:00:00",
        "start=2020-01-01T00:00:00&start=x", "start=x&start=2020-01-01T00:00:00",
        "start=2001-01-01T00:00:00&end=2001-02-01T00:00:00",
    ):  # fmt: skip
        for at in ("2.1", "2.104"):
            await play.ask(
                f"time {query}", "usage:list", "GET", f"{USAGE}?{query}", at=at, shape=True, unordered=ANY_ORDER
            )
            await play.ask(
                f"own time {query}", "usage:show", "GET", f"{own}?{query}", at=at, shape=True, unordered=ANY_ORDER
            )
    for token in TOKENS:
        await play.ask(
            "list as", "usage:list", "GET", f"{USAGE}?{period}", token=token, shape=True, unordered=ANY_ORDER
        )
        await play.ask("show as", "usage:show", "GET", f"{own}?{period}", token=token, shape=True, unordered=ANY_ORDER)
    await play.gone(server, other)


async def audit(play: Play) -> None:
    path = "/os-instance_usage_audit_log"
    period = {"hosts_not_run"}
    for at in around(102):
        for query in ("", "?foo=1"):
            await play.ask(f"list {query}", "audit:list", "GET", path + query, at=at, unordered=period)
        for when in (
            "2020-03-15 10:00:00", "2020-01-01 00:00:00", "2020-01-01 00:00:01", "2020-12-31 23:59:59.5", "2020-01-01",
            "x", "2020-01-01T00:00:00",
        ):  # fmt: skip
            await play.ask(f"show {when}", "audit:show", "GET", f"{path}/{when}", at=at, unordered=period)
    for token in TOKENS:
        await play.ask("list as", "audit:list", "GET", path, token=token, unordered=period)
        await play.ask("show as", "audit:show", "GET", f"{path}/2020-01-01 00:00:00", token=token, unordered=period)


async def hosts(play: Play) -> None:
    server = await play.boot("server", token="member")
    home = (await play.send("GET", f"/servers/{server}")).json()["server"]["OS-EXT-SRV-ATTR:host"]
    amounts = frozenset({"cpu", "memory_mb", "disk_gb"})
    for at in around(43):
        for query in ("?zone=nova", "?zone=internal", "?zone=x", "?zone=nova&zone=x", "?zone=nova&foo=1"):
            shape = "internal" in query
            await play.ask(
                f"list {query}", "hosts:list", "GET", f"/os-hosts{query}", at=at, unordered={"hosts"}, shape=shape
            )
        await play.ask("list", "hosts:list", "GET", "/os-hosts", at=at, shape=True, loose={"hosts"})
        await play.ask("show", "hosts:show", "GET", f"/os-hosts/{home}", at=at, loose=amounts)
        await play.ask("show, unknown parameter", "hosts:show", "GET", f"/os-hosts/{home}?foo=1", at=at, loose=amounts)
        for host in (home, "nohost"):
            name = "{host}" if host == home else host
            for doing in ("startup", "shutdown", "reboot"):
                await play.ask(f"{doing} {name}", f"hosts:{doing}", "GET", f"/os-hosts/{host}/{doing}", at=at)
            for field in ("status", "maintenance_mode"):
                for value in ("enable", "Disable", "ENABLE", "x", None, 1):
                    await play.ask(
                        f"put {name} {field} {value}", "hosts:update", "PUT", f"/os-hosts/{host}", {field: value}, at=at
                    )
        for body in ({}, {"foo": 1}, {"status": "enable", "foo": 1}, None):
            await play.ask(f"put {body}", "hosts:update", "PUT", f"/os-hosts/{home}", body, at=at)
        await play.ask("show nohost", "hosts:show", "GET", "/os-hosts/nohost", at=at)
    for token in TOKENS[1:]:
        for path in ("", f"/{home}", f"/{home}/startup", f"/{home}/shutdown", f"/{home}/reboot"):
            name = path.replace(home, "{host}")
            await play.ask(f"as {name}", "hosts:policy", "GET", f"/os-hosts{path}", token=token, at="2.1")
        body = {"status": "enable"}
        await play.ask("put as", "hosts:policy", "PUT", f"/os-hosts/{home}", body, token=token, at="2.1")
    await play.send("PUT", f"/os-hosts/{home}", {"status": "enable"}, at="2.1")
    await play.gone(server)


async def migrations(play: Play) -> None:
    server = await play.boot("server", token="member")
    for at in every() if play.thorough else around(23, 24, 59, 66, 80, 102):
        for query in (
            "", "?status=x", "?host=x", "?hidden=0", "?hidden=x", "?migration_type=resize", "?source_compute=x",
            f"?instance_uuid={NOWHERE}", "?foo=1", "?limit=1", "?limit=0", "?limit=x", f"?marker={NOWHERE}",
            "?marker=x", "?changes-since=x", "?changes-since=2020-01-01T00:00:00Z", "?changes-before=x",
            "?changes-before=2020-01-01T00:00:00Z",
            "?changes-since=2020-02-01T00:00:00Z&changes-before=2020-01-01T00:00:00Z", "?user_id=x", "?project_id=x",
            "?status=a&status=b", "?limit=1&limit=2", "?node=x",
        ):  # fmt: skip
            await play.ask(f"list {query}", "migrations:list", "GET", f"/os-migrations{query}", at=at)
        path = f"/servers/{server}/migrations"
        await play.ask("of server", "server-migrations:list", "GET", path, at=at)
        await play.ask("of server, unknown parameter", "server-migrations:list", "GET", f"{path}?foo=1", at=at)
        for item in ("1", "x", NOWHERE):
            await play.ask(f"show {item}", "server-migrations:show", "GET", f"{path}/{item}", at=at)
        await play.ask("of none", "server-migrations:list", "GET", f"/servers/{NOWHERE}/migrations", at=at)
        await play.ask("one of none", "server-migrations:show", "GET", f"/servers/{NOWHERE}/migrations/1", at=at)
    for token in TOKENS:
        for at in ("2.1", "2.79", "2.80"):
            await play.ask("list as", "migrations:list", "GET", "/os-migrations", token=token, at=at)
            query = f"?project_id={play.side.project}"
            await play.ask("own list as", "migrations:list", "GET", f"/os-migrations{query}", token=token, at=at)
        await play.ask("of server as", "server-migrations:list", "GET", f"/servers/{server}/migrations", token=token)
        await play.ask("one as", "server-migrations:show", "GET", f"/servers/{server}/migrations/1", token=token)
    await play.gone(server)


async def diagnostics(play: Play) -> None:
    server, numa = await play.boot("server", token="member"), await play.boot("numa", token="member", flavorRef="6")
    for at in every() if play.thorough else around(48, 78, 102):
        path = f"/servers/{server}/diagnostics"
        if int(at[2:]) >= 48:
            loose = frozenset(
                {"uptime", "hypervisor", "hypervisor_os", "nic_details", "disk_details", "cpu_details", "num_nics"}
                | {"memory_details", "config_drive", "driver"}
            )
            await play.ask("diagnostics", "diagnostics:show", "GET", path, at=at, loose=loose)
            await play.ask("unknown parameter", "diagnostics:show", "GET", f"{path}?foo=1", at=at, loose=loose)
        else:
            answer = await play.send("GET", path, at=at)
            kinds = {type(value).__name__ for value in answer.json().values()}
            play.note("diagnostics", "diagnostics:show", at, "admin", [answer.status_code, sorted(kinds)])
        await play.ask("of none", "diagnostics:show", "GET", f"/servers/{NOWHERE}/diagnostics", at=at)
        for name, one in (("plain", server), ("numa", numa)):
            path = f"/servers/{one}/topology"
            for token in ("admin", "member"):
                await play.ask(f"topology {name}", "topology:show", "GET", path, at=at, token=token)
            await play.ask(f"topology {name}, unknown parameter", "topology:show", "GET", f"{path}?foo=1", at=at)
        await play.ask("topology of none", "topology:show", "GET", f"/servers/{NOWHERE}/topology", at=at)
    for token in TOKENS[1:]:
        await play.ask("diagnostics as", "diagnostics:show", "GET", f"/servers/{server}/diagnostics", token=token)
        await play.ask("topology as", "topology:show", "GET", f"/servers/{numa}/topology", token=token)
    await play.send("POST", f"/servers/{server}/action", {"os-stop": None})
    await play.settle(server)
    for at in ("2.1", "2.48"):
        await play.ask("of a stopped one", "diagnostics:show", "GET", f"/servers/{server}/diagnostics", at=at)
    await play.gone(server, numa)
