"""What steps work with."""

from __future__ import annotations

from dataclasses import dataclass

from kilonova.conductor.agents import Agents
from kilonova.conductor.hosts import Hosts
from kilonova.engine.model import Run
from kilonova.runtime import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Env:
    rt: Runtime
    agents: Agents
    hosts: Hosts


ServerRun = Run[Env]
