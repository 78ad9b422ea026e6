"""How a simulated host is told to fail, wait or dawdle.

From the request, in flavor extra specs, image properties or server metadata
(the later of these wins):

  sim:fail_at=<verb>[:<times>[:<kind>]][,...]    fail before the effect
  sim:fail_after=<verb>[:<times>[:<kind>]][,...] fail after the effect
  sim:block_for=<verb>:<seconds>[,...]           wait before the effect
  sim:time_scale=<factor>                        stretch all waits
  sim:only_on=<host>[,...]                       the above only on these hosts
  sim:ignores_shutdown=true                      the guest never powers off by itself

A verb is a driver's, without `ensure_`; kinds are host (as without one), invalid,
transient and crash; without `times` it fails always. Times count per server and host.
From a test: a `Script` object.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from kilonova.agent.driver import ImageSpec, ServerSpec
from kilonova.errors import HostFailure, Invalid, Transient

VERBS = frozenset(
    (
        *("image", "disks", "config_drive", "defined", "running", "stopped", "rebooted", "paused", "unpaused"),
        *("suspended", "resumed", "absent", "disks_absent", "plugged", "unplugged", "attached", "detached"),
    )
)


class Script(Protocol):
    """A test's own hand on a simulated host; both may wait or raise."""

    async def before(self, host: str, verb: str, uuid: str) -> None: ...

    async def after(self, host: str, verb: str, uuid: str) -> None: ...


class Fault(msgspec.Struct, frozen=True):
    """Fail `times` times (None: always) with an error of `kind`."""

    verb: str
    times: int | None = None
    kind: str = "host"

    def strike(self, call: int, when: str) -> None:
        """Raise when the `call`-th call (from 1) is one that has to fail."""
        if self.times is not None and call > self.times:
            return
        message = f"Simulated failure {when} '{self.verb}' (call {call})."
        if self.kind == "invalid":
            raise Invalid(message)
        if self.kind == "transient":
            raise Transient(message)
        if self.kind == "crash":
            raise RuntimeError(message)
        raise HostFailure(message)


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What a request's `sim:` keys ask of this host."""

    fail_at: dict[str, Fault] = {}
    fail_after: dict[str, Fault] = {}
    block_for: dict[str, float] = {}
    time_scale: float = 1.0
    ignores_shutdown: bool = False


NOTHING = Wishes()


def wishes(host: str, spec: ServerSpec | None, image: ImageSpec | None = None) -> Wishes:
    """Raises Invalid for a `sim:` key that cannot be understood."""
    image = image or (spec.image if spec is not None else None)
    sources = [spec.extra_specs if spec else {}, image.properties if image else {}, spec.metadata if spec else {}]
    keys = {k: v for source in sources for k, v in source.items() if k.startswith("sim:")}
    if not keys or ((only := keys.get("sim:only_on")) and host not in only.split(",")):
        return NOTHING
    try:
        return Wishes(
            fail_at=_faults(keys.get("sim:fail_at")),
            fail_after=_faults(keys.get("sim:fail_after")),
            block_for={_verb(v): float(s) for v, s in (p.split(":") for p in _parts(keys.get("sim:block_for")))},
            time_scale=float(keys.get("sim:time_scale", 1)),
            ignores_shutdown=keys.get("sim:ignores_shutdown", "").lower() == "true",
        )
    except ValueError as error:
        raise Invalid(f"The 'sim:' keys of this request cannot be understood: {error}.") from error


def _parts(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _verb(text: str) -> str:
    verb = text.removeprefix("ensure_")
    if verb not in VERBS:
        raise ValueError(f"'{text}' is none of {', '.join(sorted(VERBS))}")
    return verb


def _faults(text: str | None) -> dict[str, Fault]:
    found = {}
    for part in _parts(text):
        verb, times, kind = [*part.split(":"), "", ""][:3]
        found[_verb(verb)] = Fault(_verb(verb), int(times) if times else None, kind or "host")
    return found
