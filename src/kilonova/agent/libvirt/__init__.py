"""The libvirt driver. `LibvirtDriver` needs the optional libvirt binding; nothing else in Kilonova does."""

from __future__ import annotations

from kilonova.agent.libvirt.driver import LibvirtDriver
from kilonova.agent.libvirt.options import LibvirtOptions

__all__ = ["LibvirtDriver", "LibvirtOptions"]
