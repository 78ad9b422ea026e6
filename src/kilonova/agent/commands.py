"""What a conductor may tell an agent to do to a server: each verb's arguments and its way over the driver.

Every verb ends in the same state when it is done again after a crash at any
point, and tells the guest's power state in its result.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import msgspec

from kilonova.agent.driver import Driver, ImageSource, PowerState, Progress, Secrets, ServerSpec
from kilonova.errors import Invalid, Transient

Data = dict[str, object]


class Marks(Protocol):
    """Points of no repetition, kept in the journal with the server."""

    async def get(self) -> str | None: ...

    async def set(self, mark: str) -> None: ...


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What a verb works with."""

    driver: Driver
    images: ImageSource
    secrets: Secrets
    progress: Progress
    marks: Marks


class NoImages:
    """The image source of an agent that was given none."""

    def download(self, image_id: str, token: str | None, offset: int = 0) -> AsyncIterator[bytes]:
        raise Transient("This host has no access to the Image service.")


class ServerArgs(msgspec.Struct, frozen=True, kw_only=True):
    """Arguments of verbs that need to know nothing but which server."""

    uuid: str


class BootArgs(msgspec.Struct, frozen=True, kw_only=True):
    """Build the server; with `start` false leave it off."""

    spec: ServerSpec
    start: bool = True


class RebuildArgs(msgspec.Struct, frozen=True, kw_only=True):
    """Wipe the server and build it anew, once per `marker` (the operation's id)."""

    spec: ServerSpec
    marker: str
    start: bool = True
    stop_timeout: float = 0.0
    """Seconds that the guest gets to power off."""


class DestroyArgs(msgspec.Struct, frozen=True, kw_only=True):
    uuid: str
    keep_disks: bool = False
    stop_timeout: float = 0.0
    """Seconds that the guest gets to power off; 0 cuts the power at once."""


class StopArgs(msgspec.Struct, frozen=True, kw_only=True):
    uuid: str
    timeout: float = 60.0
    """Seconds that the guest gets to power off."""
    clean: bool = True
    """False cuts the power at once."""


class StartArgs(msgspec.Struct, frozen=True, kw_only=True):
    spec: ServerSpec


class RebootArgs(msgspec.Struct, frozen=True, kw_only=True):
    """Reboot once per `marker`. With `spec` one that is off gets its ports, and a hard reboot defines a missing one."""

    uuid: str
    marker: str
    hard: bool = False
    timeout: float = 120.0
    """Seconds after which a soft reboot becomes a hard one."""
    spec: ServerSpec | None = None


class AttachArgs(msgspec.Struct, frozen=True, kw_only=True):
    """`spec` has the NIC of port `port_id` in it."""

    spec: ServerSpec
    port_id: str


class DetachArgs(msgspec.Struct, frozen=True, kw_only=True):
    """`spec` is without the NIC."""

    spec: ServerSpec
    port_id: str
    mac: str


async def _boot(context: Context, args: BootArgs) -> Data:
    return await _build(context, args.spec, start=args.start)


async def _build(context: Context, spec: ServerSpec, *, start: bool) -> Data:
    driver, progress = context.driver, context.progress
    if spec.image is not None:
        await progress("image", 0)
        await driver.ensure_image(spec.image, context.images, context.secrets.image_token, progress)
    await progress("disks", 0)
    await driver.ensure_disks(spec)
    if spec.config_drive:
        await progress("config_drive", 0)
        await driver.ensure_config_drive(spec, context.secrets)
    if spec.nics:
        await progress("plug", 0)
        await driver.ensure_plugged(spec)
    await progress("define", 0)
    defined = await driver.ensure_defined(spec)
    if start:
        await progress("start", 0)
        await driver.ensure_running(spec.uuid)
    data = await _state(context, spec.uuid)
    return data | {"machine_type": defined.machine_type, "cpu_model": defined.cpu_model}


async def _rebuild(context: Context, args: RebuildArgs) -> Data:
    uuid = args.spec.uuid
    mark = f"rebuild/{args.marker}"
    if await context.marks.get() != mark:
        await context.progress("wipe", 0)
        await _power_off(context, uuid, args.stop_timeout)
        await context.driver.ensure_absent(uuid)
        await context.driver.ensure_disks_absent(uuid, keep_console_log=False)
        await context.marks.set(mark)
    return await _build(context, args.spec, start=args.start)


async def _destroy(context: Context, args: DestroyArgs) -> Data:
    await _power_off(context, args.uuid, args.stop_timeout)
    await context.driver.ensure_absent(args.uuid)
    await context.driver.ensure_unplugged(args.uuid)
    if not args.keep_disks:
        await context.driver.ensure_disks_absent(args.uuid)
    return {"power_state": 0}


async def _power_off(context: Context, uuid: str, timeout: float) -> None:
    """Let a running guest power off before it is removed, when it was given time for that."""
    if timeout > 0 and await context.driver.power_state(uuid) is PowerState.RUNNING:
        await context.driver.ensure_stopped(uuid, timeout)


async def _stop(context: Context, args: StopArgs) -> Data:
    await context.driver.ensure_stopped(args.uuid, args.timeout if args.clean else 0.0)
    return await _state(context, args.uuid)


async def _plug(context: Context, spec: ServerSpec) -> None:
    """A guest that is about to start has its taps and no others: what was changed while its host was away counts too.

    They live in a namespace which may not have outlived the host, or the plane.
    """
    if spec.nics:
        await context.driver.ensure_plugged(spec)
    await context.driver.ensure_unplugged(spec.uuid, keep=[nic.port_id for nic in spec.nics])


async def _start(context: Context, args: StartArgs) -> Data:
    await _plug(context, args.spec)
    await context.driver.ensure_defined(args.spec)
    await context.driver.ensure_running(args.spec.uuid)
    return await _state(context, args.spec.uuid)


async def _reboot(context: Context, args: RebootArgs) -> Data:
    if args.spec is not None and args.hard:
        await _plug(context, args.spec)
        await context.driver.ensure_defined(args.spec)
    elif args.spec is not None and await context.driver.power_state(args.uuid) is not PowerState.RUNNING:
        # Its host was booted meanwhile: it is about to start, and its taps are gone.
        await _plug(context, args.spec)
    await context.driver.ensure_rebooted(args.uuid, hard=args.hard, marker=args.marker, timeout=args.timeout)
    return await _state(context, args.uuid)


async def _pause(context: Context, args: ServerArgs) -> Data:
    await context.driver.ensure_paused(args.uuid)
    return await _state(context, args.uuid)


async def _unpause(context: Context, args: ServerArgs) -> Data:
    await context.driver.ensure_unpaused(args.uuid)
    return await _state(context, args.uuid)


async def _suspend(context: Context, args: ServerArgs) -> Data:
    await context.driver.ensure_suspended(args.uuid)
    return await _state(context, args.uuid)


async def _resume(context: Context, args: StartArgs) -> Data:
    if args.spec.nics:
        await context.driver.ensure_plugged(args.spec)
    await context.driver.ensure_resumed(args.spec.uuid)
    return await _state(context, args.spec.uuid)


async def _attach(context: Context, args: AttachArgs) -> Data:
    await context.driver.ensure_attached(args.spec, args.port_id)
    return await _state(context, args.spec.uuid)


async def _detach(context: Context, args: DetachArgs) -> Data:
    await context.driver.ensure_detached(args.spec, args.port_id, args.mac)
    return await _state(context, args.spec.uuid)


async def _power_state(context: Context, args: ServerArgs) -> Data:
    return await _state(context, args.uuid)


async def _state(context: Context, uuid: str) -> Data:
    return {"power_state": int(await context.driver.power_state(uuid))}


class Verb(msgspec.Struct, frozen=True):
    """`builds`: counts against the host's bound of concurrent builds."""

    args: type[msgspec.Struct]
    run: Callable[[Context, Any], Awaitable[Data]]
    builds: bool = False


VERBS: dict[str, Verb] = {
    "boot": Verb(BootArgs, _boot, builds=True),
    "prepare": Verb(BootArgs, _boot, builds=True),
    "destroy": Verb(DestroyArgs, _destroy),
    "rebuild": Verb(RebuildArgs, _rebuild, builds=True),
    "stop": Verb(StopArgs, _stop),
    "start": Verb(StartArgs, _start),
    "reboot": Verb(RebootArgs, _reboot),
    "pause": Verb(ServerArgs, _pause),
    "unpause": Verb(ServerArgs, _unpause),
    "suspend": Verb(ServerArgs, _suspend),
    "resume": Verb(StartArgs, _resume),
    "attach": Verb(AttachArgs, _attach),
    "detach": Verb(DetachArgs, _detach),
    "power_state": Verb(ServerArgs, _power_state),
}


def encode_args(args: msgspec.Struct) -> msgspec.Raw:
    """A verb's arguments as a `Command` carries them."""
    return msgspec.Raw(msgspec.msgpack.encode(args))


def decode_args(verb: str, raw: msgspec.Raw) -> tuple[Verb, msgspec.Struct]:
    """The verb and its arguments. Raises Invalid for an unknown verb or arguments that do not fit it."""
    found = VERBS.get(verb)
    if found is None:
        raise Invalid(f"This host does not know the command '{verb}'; it knows {', '.join(sorted(VERBS))}.")
    try:
        return found, msgspec.msgpack.decode(raw, type=found.args)
    except msgspec.DecodeError as error:
        raise Invalid(f"The arguments of the command '{verb}' do not fit: {error}.") from error
