"""Rows of PCI devices: what each host gives away, and which server has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from kilonova.db.engine import Tx
from kilonova.db.tables import pci_devices
from kilonova.pci import PciDevice

_c = pci_devices.c


async def assign(tx: Tx, node_id: int, wanted: Mapping[str, int], server_uuid: str) -> bool:
    """Give the server as many devices of each class; False when they are not there, with some perhaps given.

    The caller has the node's row locked.
    """
    for kind, count in wanted.items():
        free = (_c.node_id == node_id, _c.resource_class == kind, _c.present.is_(True), _c.server_uuid.is_(None))
        rows = await tx.execute(sa.select(_c.address).where(*free).order_by(_c.address).limit(count))
        addresses = [row.address for row in rows]
        mine = sa.update(pci_devices).where(*free, _c.address.in_(addresses)).values(server_uuid=server_uuid)
        if len(addresses) < count or (await tx.execute(mine)).rowcount != count:
            return False
    return True


async def of_server(tx: Tx, server_uuid: str) -> list[str]:
    """Addresses, in order."""
    rows = await tx.execute(sa.select(_c.address).where(_c.server_uuid == server_uuid).order_by(_c.address))
    return [row.address for row in rows]


async def release(tx: Tx, server_uuid: str) -> None:
    await tx.execute(sa.update(pci_devices).where(_c.server_uuid == server_uuid).values(server_uuid=None))


async def set_devices(tx: Tx, node_id: int, devices: Sequence[PciDevice]) -> None:
    """What a host reports. One that is gone stays a row, and is given to nobody, as long as a server has it.

    The caller has the node's row locked.
    """
    rows = await tx.execute(
        sa.select(_c.address, _c.resource_class, _c.present, _c.server_uuid).where(_c.node_id == node_id)
    )
    known = {row.address: (row.resource_class, row.present, row.server_uuid) for row in rows}
    now = {device.address: device.resource_class for device in devices}
    for address, (kind, present, server) in known.items():
        this = (_c.node_id == node_id, _c.address == address)
        if server is None and now.get(address) != kind:
            await tx.execute(sa.delete(pci_devices).where(*this))
        elif present != (now.get(address) == kind):
            await tx.execute(sa.update(pci_devices).where(*this).values(present=not present))
    for address, kind in now.items():
        if address not in known or (known[address][2] is None and known[address][0] != kind):
            row = {"node_id": node_id, "address": address, "resource_class": kind, "present": True}
            await tx.execute(sa.insert(pci_devices).values(row))
