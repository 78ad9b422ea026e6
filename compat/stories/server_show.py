"""One server, its fields at every version, its addresses."""

from __future__ import annotations

from typing import Any

from compat.microversions import around, every
from compat.play import Play

BOUNDARIES = (3, 9, 16, 18, 19, 26, 27, 36, 46, 47, 63, 69, 71, 73, 75, 90, 96, 98, 100, 102)
NOWHERE = "00000000-0000-0000-0000-000000000000"
NAMES = {"OS-EXT-SRV-ATTR:hypervisor_hostname"}
USER_DATA = "I2Nsb3VkLWNvbmZpZwo="
KEY = (
    "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDx8nkQv/zgGgB4rMYmIf+6A4l6Rr+o/6lHBQdW5aYd44bd8JttDCE/F/pNRr0lRE+PiqSPO8nD"
    "PHw0010JeMH9gYgnnFlyY3/OcJ02RhIPyyxYpv9FhY+2YiUkpwFOcLImyrxEsYXpD/0d3ac30bNH6Sw9JD9UZHYcpSxsIbECHw== someone@home"
)


def versions(play: Play) -> list[str]:
    return every() if play.thorough else around(*BOUNDARIES)


async def show(play: Play) -> None:
    await play.send("POST", "/os-keypairs", {"keypair": {"name": "show", "public_key": KEY}})
    server = await play.boot(
        "server",
        name="full",
        description="a description",
        flavorRef="2",
        key_name="show",
        metadata={"m": "v"},
        tags=["t1", "t2"],
        user_data=USER_DATA,
        config_drive=True,
        adminPass="secret",
        availability_zone="nova",
        hostname="full-host",
    )
    for token in ("admin", "member", "reader"):
        await play.sweep("show", "servers:show", f"/servers/{server}", versions(play), token=token)
    await play.sweep("detail", "servers:detail", "/servers/detail?name=full", versions(play))
    await play.sweep("detail", "servers:detail", "/servers/detail?name=full", versions(play), token="member")
    await play.sweep("list", "servers:list", "/servers?name=full", versions(play))
    await play.sweep("ips", "servers:ips", f"/servers/{server}/ips", around(102))
    await play.ask("ips of no such network", "servers:ips", "GET", f"/servers/{server}/ips/none")
    await play.ask("legacy", "servers:show", "GET", f"/v2/servers/{server}", at=None)
    await play.ask("legacy detail", "servers:detail", "GET", "/v2/servers/detail?name=full", at=None)
    path = f"/v2.1/{play.side.project}/servers/{server}"
    await play.ask("with the project's id", "servers:show", "GET", path)
    await play.ask("other project", "servers:show", "GET", f"/servers/{server}", token="other")
    await play.ask("no role", "servers:show", "GET", f"/servers/{server}", token="nobody")
    for at in ("2.101", "2.102"):
        await play.ask("unknown parameter", "servers:show", "GET", f"/servers/{server}?foo=1", at=at)
        await play.ask("ips, unknown parameter", "servers:ips", "GET", f"/servers/{server}/ips?foo=1", at=at)
    await play.gone(server)
    await play.ask("deleted", "servers:show", "GET", f"/servers/{server}")
    for at in ("2.1", "2.104"):
        await play.ask("deleted in detail", "servers:detail", "GET", "/servers/detail?deleted=true&name=full", at=at)
    await play.send("DELETE", "/os-keypairs/show")


async def fields(play: Play) -> None:
    """Unusual values of fields."""
    at = ("2.1", "2.47", "2.104")
    plain = await play.boot("plain")
    await play.sweep("plain", "servers:show", f"/servers/{plain}", at)
    await play.sweep("plain", "servers:show", f"/servers/{plain}", at, token="member")
    created: dict[str, dict[str, Any]] = {
        "addresses": {"accessIPv4": "1.2.3.4", "accessIPv6": "fe80::1"},
        "disk config": {"OS-DCF:diskConfig": "AUTO"},
        "name that is no host name": {"name": "Ein Ding_1!"},
        "unicode name": {"name": "サーバ"},
        "dots": {"name": "a.b.c"},
        "digits": {"name": "12345"},
        "config drive as text": {"config_drive": "yes"},
        "no config drive": {"config_drive": False},
        "image without properties": {"imageRef": play.side.other_image},
        "flavor with specs": {"flavorRef": "6"},
        "hints": {},
        "empty metadata": {"metadata": {}},
        "empty description": {"description": ""},
        "null description": {"description": None},
        "fully qualified": {"hostname": "a.example.org"},
    }
    for name, wanted in created.items():
        body = play.server(**wanted)
        if name == "hints":
            body["OS-SCH-HNT:scheduler_hints"] = {"same_host": [plain], "foo": "bar"}
        answer = await play.send("POST", "/servers", body)
        if answer.status_code != 202:
            await play.ask(name, "servers:create", "POST", "/servers", body)
            continue
        server = answer.json()["server"]["id"]
        play.name(server, "server")
        await play.settle(server)
        await play.sweep(name, "servers:show", f"/servers/{server}", at)
        await play.gone(server)
    await play.gone(plain)


async def missing(play: Play) -> None:
    for what in (NOWHERE, "abc"):
        for suffix in (
            "",
            "/ips",
            "/ips/private",
            "/metadata",
            "/metadata/a",
            "/tags",
            "/tags/a",
            "/os-instance-actions",
            "/os-instance-actions/req-1",
        ):
            await play.ask(f"GET {what}{suffix}", "servers:show", "GET", f"/servers/{what}{suffix}")
        await play.ask(f"DELETE {what}", "servers:delete", "DELETE", f"/servers/{what}")
        await play.ask(f"PUT {what}", "servers:update", "PUT", f"/servers/{what}", {"server": {"name": "a"}})
        for action in ("os-start", "os-stop", "pause", "unpause", "suspend", "resume", "lock", "unlock", "forceDelete"):
            await play.ask(f"{action} {what}", f"actions:{action}", "POST", f"/servers/{what}/action", {action: None})
        for action, value in {
            "reboot": {"type": "SOFT"},
            "rebuild": {"imageRef": play.side.image},
            "os-getConsoleOutput": {},
        }.items():
            await play.ask(f"{action} {what}", f"actions:{action}", "POST", f"/servers/{what}/action", {action: value})
        await play.ask(
            f"POST {what} metadata", "servers:metadata", "POST", f"/servers/{what}/metadata", {"metadata": {"a": "b"}}
        )
        await play.ask(f"PUT {what} tags", "servers:tags", "PUT", f"/servers/{what}/tags", {"tags": ["a"]})
