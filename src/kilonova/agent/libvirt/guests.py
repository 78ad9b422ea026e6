"""Looking at guests and changing them, as libvirt has them: blocking functions on a connection.

libvirt's constants and odd cases end here; callers see power states and our own errors.
"""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any

import libvirt

from kilonova.agent.driver import Guest, PowerState
from kilonova.agent.libvirt.mark import NAMESPACE, PREFIX, Mark, find_mark
from kilonova.errors import HostFailure, Transient

_POWER = {
    libvirt.VIR_DOMAIN_NOSTATE: PowerState.NOSTATE,
    libvirt.VIR_DOMAIN_RUNNING: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: PowerState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: PowerState.SHUTDOWN,
    libvirt.VIR_DOMAIN_SHUTOFF: PowerState.SHUTDOWN,
    libvirt.VIR_DOMAIN_CRASHED: PowerState.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: PowerState.SUSPENDED,
}
_GONE = libvirt.VIR_ERR_NO_DOMAIN
_NOT_SO = libvirt.VIR_ERR_OPERATION_INVALID
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


@dataclass(frozen=True, slots=True)
class View:
    """A guest at one moment. `saved`: its memory lies in a managed save image."""

    power: PowerState
    active: bool
    ending: bool
    """It is going down and will be off in a moment."""
    saved: bool


def lookup(handle: Any, uuid: str) -> Any | None:
    """The domain, whoever owns it; None when it is not defined."""
    try:
        return handle.lookupByUUIDString(uuid)
    except libvirt.libvirtError as error:
        if error.get_error_code() == _GONE:
            return None
        raise


def marks(domain: Any, *, live: bool = False) -> Mark | None:
    """Our mark in the guest's definition, or in what runs now."""
    flags = 0 if live else libvirt.VIR_DOMAIN_XML_INACTIVE
    return find_mark(ET.fromstring(domain.XMLDesc(flags)))


def find(handle: Any, uuid: str, deployment: str) -> Any | None:
    """The domain if it is ours."""
    domain = lookup(handle, uuid)
    if domain is None:
        return None
    try:
        mark = marks(domain)
    except libvirt.libvirtError as error:
        if error.get_error_code() == _GONE:
            return None
        raise
    return domain if mark is not None and mark.deployment == deployment else None


def must_find(handle: Any, uuid: str, deployment: str) -> Any:
    domain = find(handle, uuid, deployment)
    if domain is None:
        raise HostFailure(f"Server {uuid} is not defined on this host.")
    return domain


def view(domain: Any) -> View:
    state, _reason = domain.state()
    saved = state == libvirt.VIR_DOMAIN_SHUTOFF and bool(domain.hasManagedSaveImage())
    return View(
        power=PowerState.SUSPENDED if saved else _POWER.get(state, PowerState.NOSTATE),
        active=state not in (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_CRASHED),
        ending=state == libvirt.VIR_DOMAIN_SHUTDOWN,
        saved=saved,
    )


def everything(handle: Any) -> list[Guest]:
    """All guests, ours and others'. One that vanishes while we look is left out."""
    found = []
    for domain in handle.listAllDomains():
        try:
            mark = marks(domain)
            found.append(
                Guest(
                    uuid=domain.UUIDString(),
                    name=domain.name(),
                    power_state=view(domain).power,
                    deployment_id=mark.deployment if mark is not None else None,
                )
            )
        except libvirt.libvirtError as error:
            if error.get_error_code() != _GONE:
                raise
    return found


def define(handle: Any, xml: str, mark: Mark, uuid: str) -> None:
    """The guest is defined as described, unless it already is. Never takes over somebody else's domain."""
    domain = lookup(handle, uuid)
    if domain is not None:
        known = marks(domain)
        if known is None or known.deployment != mark.deployment:
            raise HostFailure(f"A guest {uuid} that is not of this deployment is defined on this host.")
        if known.definition == mark.definition and domain.isPersistent():
            return
    handle.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)


def start(domain: Any) -> None:
    """Start or restore; nothing to do when it runs meanwhile."""
    with _unless(_NOT_SO):
        domain.create()


def press_power_button(domain: Any) -> None:
    with _unless(_NOT_SO):
        domain.shutdown()


def cut_power(domain: Any) -> None:
    """Off at once, its saved memory dropped too. Raises Transient when the process does not end."""
    try:
        with _unless(_NOT_SO, _GONE):
            domain.destroy()
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_SYSTEM_ERROR, libvirt.VIR_ERR_OPERATION_FAILED):
            raise Transient(f"The guest's process does not end: {error.get_error_message()}") from error
        raise
    forget_memory(domain)


def forget_memory(domain: Any) -> None:
    with _unless(_NOT_SO, _GONE):
        if domain.hasManagedSaveImage():
            domain.managedSaveRemove()


def pause(domain: Any) -> None:
    with _unless(_NOT_SO):
        domain.suspend()


def unpause(domain: Any) -> None:
    with _unless(_NOT_SO):
        domain.resume()


def save(domain: Any) -> None:
    """Memory to disk and off; when it is restored it runs, also when it was paused."""
    domain.managedSave(libvirt.VIR_DOMAIN_SAVE_RUNNING)


def abort_job(handle: Any, uuid: str) -> None:
    domain = lookup(handle, uuid)
    if domain is not None:
        with _unless(_NOT_SO, _GONE):
            domain.abortJob()


def attach_nic(domain: Any, xml: str, mac: str) -> None:
    """What runs has the NIC; nothing to do when it does, or is off."""
    if domain.isActive() and not _has_nic(domain, mac):
        domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def detach_nic(domain: Any, mac: str) -> bool:
    """Ask what runs to let go of the NIC; whether it still has it. Asking again is no harm."""
    if not domain.isActive():
        return False
    found = _nic(domain, mac)
    if found is None:
        return False
    # The guest is still busy with the last request; or it has let go meanwhile.
    with _unless(_NOT_SO, libvirt.VIR_ERR_DEVICE_MISSING, libvirt.VIR_ERR_OPERATION_FAILED):
        domain.detachDeviceFlags(ET.tostring(found, encoding="unicode"), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    return _has_nic(domain, mac)


def _has_nic(domain: Any, mac: str) -> bool:
    return _nic(domain, mac) is not None


def _nic(domain: Any, mac: str) -> ET.Element | None:
    """As it is in what runs."""
    for element in ET.fromstring(domain.XMLDesc()).iterfind("devices/interface"):
        address = element.find("mac")
        if address is not None and address.get("address") == mac:
            return element
    return None


def undefine(domain: Any) -> None:
    """Not defined any more, with all that libvirt kept of it."""
    with _unless(_GONE):
        domain.undefineFlags(_UNDEFINE)


def note_reboot(domain: Any, marker: str) -> bool:
    """Write the marker into the definition that the next start will use. Whether what runs was started from it.

    What runs keeps the metadata it was started with: that tells 'rebooted already' from 'still to do' at any moment
    that we may be killed.
    """
    mark = marks(domain)
    assert mark is not None
    if mark.reboot != marker:
        noted = Mark(deployment=mark.deployment, definition=mark.definition, reboot=marker)
        domain.setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT, noted.xml(), PREFIX, NAMESPACE, libvirt.VIR_DOMAIN_AFFECT_CONFIG
        )
        return False
    running = marks(domain, live=True)
    return bool(domain.isActive()) and running is not None and running.reboot == marker


@contextlib.contextmanager
def _unless(*codes: int) -> Any:
    """These errors mean that the world already is, or meanwhile became, as wanted."""
    try:
        yield
    except libvirt.libvirtError as error:
        if error.get_error_code() not in codes:
            raise
