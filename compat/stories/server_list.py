"""Lists of servers: pages, order, filters."""

from __future__ import annotations

from compat.play import Play
from compat.stories.server_show import KEY, NOWHERE


async def _three(play: Play) -> tuple[str, str, str]:
    await play.send("POST", "/os-keypairs", {"keypair": {"name": "listed", "public_key": KEY}}, token="member")
    first = await play.boot("one", token="member", name="one", metadata={"a": "b"}, key_name="listed")
    second = await play.boot(
        "two", token="member", name="two", description="the second", flavorRef="2", tags=["x", "y"]
    )
    third = await play.boot("three", name="three", config_drive=True, tags=["x"], imageRef=play.side.other_image)
    await play.send("POST", f"/servers/{second}/action", {"os-stop": None})
    await play.settle(second)
    await play.send("POST", f"/servers/{third}/action", {"lock": None})
    return first, second, third


async def pages(play: Play) -> None:
    one, two, three = await _three(play)
    for at in ("2.1", "2.104"):
        for query in (
            "",
            "?limit=1",
            "?limit=2",
            "?limit=3",
            "?limit=0",
            "?limit=-1",
            "?limit=x",
            "?limit=",
            "?limit=1&limit=2",
            f"?marker={two}",
            f"?marker={two}&limit=1",
            f"?marker={NOWHERE}",
            "?marker=x",
            "?marker=",
            f"?limit=1&marker={three}&sort_key=display_name",
            "?sort_key=display_name&sort_dir=asc",
            "?sort_key=display_name&sort_dir=desc",
            "?sort_key=created_at&sort_dir=asc",
            "?sort_key=uuid&sort_dir=up",
            "?sort_key=foo",
            "?sort_key=vm_state&sort_dir=asc&sort_key=display_name&sort_dir=desc",
            "?sort_dir=asc",
            "?sort_key=locked",
            "?sort_key=task_state&sort_key=display_name&sort_dir=asc&sort_dir=asc",
            "?limit=1&name=o&sort_key=display_name&foo=bar",
        ):
            shown = query.replace(two, "{two}").replace(three, "{three}")
            await play.ask(f"list{shown}", "servers:list", "GET", f"/servers{query}", at=at)
            await play.ask(f"detail{shown}", "servers:detail", "GET", f"/servers/detail{query}", at=at, shape=True)
    await play.ask("host as sort key", "servers:list", "GET", "/servers?sort_key=host", token="member")
    await play.ask("links with the project", "servers:list", "GET", f"/v2.1/{play.side.project}/servers?limit=1")
    await play.ask("links of legacy", "servers:list", "GET", "/v2/servers?limit=1", at=None)
    await play.ask("other project", "servers:list", "GET", "/servers", token="other")
    await play.ask("no role", "servers:list", "GET", "/servers", token="nobody")
    await play.gone(one, two, three)
    await play.send("DELETE", "/os-keypairs/listed", token="member")


QUERIES = (
    "name=one",
    "name=o",
    "name=^t",
    "name=[",
    "name=",
    "status=ACTIVE",
    "status=active",
    "status=SHUTOFF",
    "status=FOO",
    "status=DELETED&limit=1",
    "status=ERROR",
    "status=ACTIVE&status=SHUTOFF",
    "status=",
    "deleted=true&limit=1",
    "deleted=x",
    "all_tenants=1",
    "all_tenants=foo",
    "all_tenants",
    "all_tenants=0",
    "foo=bar",
    "ip=192",
    "ip6=fe",
    "flavor=1",
    "flavor=2",
    "flavor=zzz",
    "flavor=http://x/flavors/2",
    "image={image}",
    "image=x",
    "changes-since=2011-01-01T00:00:00Z&limit=1",
    "changes-since=foo",
    "changes-since=2111-01-01T00:00:00Z",
    "changes-before=2011-01-01T00:00:00Z",
    "changes-since=2012-01-01T00:00:00Z&changes-before=2011-01-01T00:00:00Z&limit=1",
    "tags=x",
    "tags=x,y",
    "tags-any=y,zz",
    "not-tags=x",
    "not-tags-any=x,y",
    "tags=",
    "host={host}",
    "host=nohost",
    "node=nonode",
    "hypervisor_hostname=nonode",
    "locked=true",
    "locked=false",
    "locked=foo",
    "vm_state=active",
    "vm_state=foo",
    "power_state=1",
    "power_state=x",
    "task_state=none",
    "task_state=",
    "availability_zone=nova",
    "availability_zone=x",
    "config_drive=true",
    "config_drive=",
    "key_name=listed",
    "description=second",
    "reservation_id=none",
    "uuid={one}",
    "uuid=x",
    "project_id={project}",
    "project_id=x",
    "tenant_id=x",
    "tenant_id={project}&all_tenants=1",
    "user_id=admin",
    "user_id=x",
    "hostname=two",
    "launched_at=x",
    'metadata={{"a":"b"}}',
    'metadata={{"a":"c"}}',
    "metadata=x",
    "system_metadata=x",
    "soft_deleted=1",
    "soft_deleted=x",
    "access_ip_v4=1",
    "access_ip_v6=1",
    "progress=0",
    "terminated_at=x",
    "root_device_name=/dev/zzz",
    "kernel_id=",
    "ramdisk_id=x",
    "launch_index=0",
    "auto_disk_config=1",
    "created_at=2020",
    "updated_at=x",
    "instance_name=x",
    "display_name=one",
    "display_description=second",
    "image_ref=x",
    "instance_type_id=1",
    "disk_config=AUTO",
    "server_name=x",
    "cleaned=x",
    "sort_keys=x",
    "name=one&name=two",
    "uuid={one}&name=two",
    "limit=1&foo=bar",
)


async def filters(play: Play) -> None:
    await _filters(play, "admin", ("2.1", "2.26", "2.37", "2.38", "2.66", "2.75", "2.104"))


async def filters_of_members(play: Play) -> None:
    await _filters(play, "member", ("2.1", "2.5", "2.82", "2.104"))


async def _filters(play: Play, token: str, versions: tuple[str, ...]) -> None:
    one, two, three = await _three(play)
    gone = (await play.send("POST", "/servers", play.server(name="gone"))).json()["server"]["id"]
    await play.settle(gone)
    await play.gone(gone)
    known = {"image": play.side.image, "host": play.side.hosts[0], "one": one, "project": play.side.project}
    for query in QUERIES:
        path = "/servers?" + query.format(**known)
        # Which host has which server differs from run to run.
        shape = query.startswith("host={")
        for at in versions:
            if shape:
                answer = await play.send("GET", path, at=at, token=token)
                await play.ask(f"?{query}", "servers:list", "GET", path + "&limit=0", at=at, token=token)
                assert answer.status_code < 500, answer.text
            else:
                # The reference has servers of other stories among the deleted ones.
                loose = {"name"} if "deleted=" in query.lower() or "DELETED" in query else set[str]()
                await play.ask(f"?{query}", "servers:list", "GET", path, at=at, token=token, loose=loose)
    await play.gone(one, two, three)
    await play.send("DELETE", "/os-keypairs/listed", token="member")
