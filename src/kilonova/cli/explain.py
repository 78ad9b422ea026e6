"""`kilonova explain`: why a server found its host or none, or where one would go. It changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from kilonova.cli.cloud import DEFAULT_STATE_DIR, StateDir
from kilonova.errors import Invalid

if TYPE_CHECKING:
    from kilonova.conductor.explaining import Explained
    from kilonova.runtime import Image
    from kilonova.settings import ComputeSettings

ConfigFile = Annotated[
    list[Path] | None,
    typer.Option(help="The cloud's nova.conf; may be repeated. One with a database is a deployment's."),
]


def explain(
    server: Annotated[str | None, typer.Argument(help="A server's id or name.")] = None,
    flavor: Annotated[str | None, typer.Option(help="Instead of a server: a flavor's id or name.")] = None,
    image: Annotated[str | None, typer.Option(help="With --flavor: an image's id.")] = None,
    hint: Annotated[list[str] | None, typer.Option(help="With --flavor: a scheduler hint, NAME=VALUE.")] = None,
    availability_zone: Annotated[str | None, typer.Option(help="With --flavor: the zone asked for.")] = None,
    host: Annotated[str | None, typer.Option(help="With --flavor: the host asked for.")] = None,
    project: Annotated[str, typer.Option(help="With --flavor: the id of the project that asks.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Rank the hosts that are left, weigher by weigher.")
    ] = False,
    most: Annotated[int, typer.Option("--hosts", min=1, help="Hosts shown.")] = 40,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, for programs.")] = False,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    config_file: ConfigFile = None,
) -> None:
    """Say of every host which filters refuse a server, and why. Nothing is claimed or changed."""
    if (server is None) == (flavor is None):
        raise Invalid("Say a server, or --flavor (with --image and --hint) for one that is not there yet.")
    explained = asyncio.run(
        _explain(
            state_dir.resolve(),
            config_file or [],
            server=server,
            flavor=flavor,
            image_id=image,
            hints=read_hints(hint or []),
            zone=availability_zone,
            host=host,
            project=project,
        )
    )
    if as_json:
        typer.echo(json.dumps(as_document(explained), indent=2))
    else:
        show(explained, Console(), most=most, ranking=dry_run)
    if not explained.explanation.left:
        raise typer.Exit(2)


def read_hints(texts: list[str]) -> dict[str, Any]:
    """A name that comes more than once is a list."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise Invalid(f"--hint {text}: NAME=VALUE is accepted.")
        found[name] = value if name not in found else [*_listed(found[name]), value]
    return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


async def _explain(
    state_dir: Path,
    config_files: list[Path],
    *,
    server: str | None,
    flavor: str | None,
    image_id: str | None,
    hints: dict[str, Any],
    zone: str | None,
    host: str | None,
    project: str,
) -> Explained:
    # Imported here: the other commands start without it.
    from kilonova import config
    from kilonova.allinone.status import read_report
    from kilonova.conductor.explaining import Wish, explain_server, explain_wish
    from kilonova.db.engine import Database
    from kilonova.service import deployment
    from kilonova.service.parts import Parts

    report = read_report(state_dir)
    if not config_files and report is not None:
        config_files = [Path(path) for path in str(report.options.get("config_files", "")).split()]
    conf = config.load(config_files)
    settings: ComputeSettings = config.compute_settings(conf, deployment_id="")
    deployed = bool(conf.database.connection)
    path = state_dir / "kilonova/compute.sqlite"
    if not deployed and not path.is_file():
        raise Invalid(
            f"There is no cloud in {state_dir}; say where with --state-dir, "
            "or with --config-file which nova.conf names its database."
        )
    async with contextlib.AsyncExitStack() as stack:
        db = Database(deployment.database(conf).url if deployed else f"sqlite:///{path}")
        stack.push_async_callback(db.close)
        if server is not None:
            return await explain_server(db, settings, server)
        found = None
        if image_id and deployed:
            found = await (await Parts(stack, conf, "kilonova-explain").images()).get(image_id, project_id=project)
        elif image_id:
            found = await _image(state_dir, image_id, project)
        wish = Wish(
            flavor=flavor or "", image=found, project_id=project, availability_zone=zone, host=host, hints=hints
        )
        return await explain_wish(db, settings, wish)


async def _image(state_dir: Path, image_id: str, project: str) -> Image:
    from kilonova.allinone.settings import Ports, advertised_host, host_in_url
    from kilonova.allinone.state import open_state_dir
    from kilonova.allinone.status import read_report
    from kilonova.clients.identity import IdentityClient
    from kilonova.clients.image import ImageClient

    report = read_report(state_dir)
    if report is None:
        raise Invalid("--image needs the cloud to be up, since Image is asked about it.")
    address = host_in_url(advertised_host(str(report.options["bind"])))
    ports = Ports.with_offset(int(report.options["port_offset"]))
    password = open_state_dir(state_dir).secrets.nova
    identity = IdentityClient(
        f"http://{address}:{ports.identity}/v3", username="nova", password=password, project="service"
    )
    images = ImageClient(f"http://{address}:{ports.image}", identity.service_token)
    try:
        return await images.get(image_id, project_id=project)
    finally:
        await images.close()
        await identity.close()


def as_document(explained: Explained) -> dict[str, Any]:
    request = {name: getattr(explained.request, name) for name in explained.request.__struct_fields__}
    request["group"] = asdict_struct(explained.request.group)
    return {
        "server": explained.server.uuid if explained.server else None,
        "request": request,
        "hosts": [asdict(one) for one in explained.explanation.hosts],
        "refused": explained.explanation.removed,
        "left": explained.explanation.left,
    }


def asdict_struct(struct: Any) -> dict[str, Any] | None:
    return None if struct is None else {name: getattr(struct, name) for name in struct.__struct_fields__}


def show(explained: Explained, console: Console, *, most: int, ranking: bool) -> None:
    """For a terminal: what was decided for a server, the table, and a last line that sums it up."""
    explanation, server = explained.explanation, explained.server
    if server is not None:
        place = f"on {server.host}" if server.host else "on no host"
        console.print(f"server {server.uuid} ({server.display_name}) is {server.vm_state}, {place}", highlight=False)
        if server.fault:
            console.print(f"  {server.fault.get('message', '')}", highlight=False, markup=False)
    console.print(table(explained, most))
    if len(explanation.hosts) > most:
        console.print(f"... and {len(explanation.hosts) - most} more hosts (--hosts N shows N)", highlight=False)
    if ranking and explanation.left:
        console.print()
        console.print(ranks(explained, most))
    console.print()
    said = ", ".join(f"{name} {count}" for name, count in explanation.removed.items() if count)
    total = len(explanation.hosts)
    console.print(
        f"{explanation.left} of {total} hosts can take it." + (f" Refused by {said}." if said else ""), highlight=False
    )
    if not explanation.left and explanation.nearest:
        console.print(f"The nearest one {explanation.nearest}.", highlight=False, markup=False)


def table(explained: Explained, most: int) -> Table:
    """A column for every filter that refuses a host, and the words of all that refuse it."""
    explanation = explained.explanation
    filters = [name for name, count in explanation.removed.items() if count]
    shown = Table(box=None, pad_edge=False)
    for heading in ("host", "zone", *filters):
        shown.add_column(heading, overflow="fold")
    shown.add_column("why not", overflow="fold", ratio=1)
    for one in explanation.hosts[:most]:
        verdicts = ["no" if name in one.refusals else "ok" for name in filters]
        name = one.host if one.host == one.node else f"{one.host} / {one.node}"
        shown.add_row(name, one.availability_zone, *verdicts, "; ".join(one.refusals.values()))
    return shown


def ranks(explained: Explained, most: int) -> Table:
    """The hosts left, best first; the first few are chosen among at random."""
    left = [one for one in explained.explanation.hosts if not one.refusals][:most]
    names = sorted({name for one in left for name in one.weights})
    shown = Table(box=None, pad_edge=False)
    for heading in ("host", "weight", *names):
        shown.add_column(heading, justify="left" if heading == "host" else "right")
    for one in left:
        shown.add_row(one.host, f"{one.weight:.3f}", *(f"{one.weights.get(name, 0.0) + 0.0:+.3f}" for name in names))
    return shown
