"""A simulated hypervisor: real journal, real bus, real commands, and guests that are rows."""

from __future__ import annotations

from kilonova.agent.sim.driver import SimDriver, SimOptions
from kilonova.agent.sim.script import Fault, Script
from kilonova.agent.sim.state import SimState

__all__ = ["Fault", "Script", "SimDriver", "SimOptions", "SimState"]
