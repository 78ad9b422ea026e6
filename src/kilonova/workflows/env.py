"""What steps work with."""

from __future__ import annotations

from dataclasses import dataclass, field

from kilonova.conductor.agents import Agents
from kilonova.conductor.hosts import Hosts
from kilonova.conductor.pace import Pace
from kilonova.conductor.plugging import Plugging
from kilonova.engine.model import Run
from kilonova.runtime import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Env:
    rt: Runtime
    agents: Agents
    hosts: Hosts
    pace: Pace = field(default_factory=Pace)
    plugging: Plugging = field(default_factory=Plugging)


ServerRun = Run[Env]
