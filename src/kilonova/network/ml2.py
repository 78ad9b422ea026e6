"""ML2's mechanism driver, loaded by Neutron's process: binds ports as Linux bridge VIFs, hints at what changes.

A port that it binds is DOWN and blocked from becoming ACTIVE until a host's plane has wired it and the role
`network` has reported so (plugin.py). Imports the standard library, Neutron and what Neutron itself stands on.
"""

from __future__ import annotations

from typing import Any

from neutron.db import provisioning_blocks
from neutron.plugins.ml2 import models
from neutron_lib import constants
from neutron_lib.api.definitions import portbindings
from neutron_lib.callbacks import events, registry, resources
from neutron_lib.plugins.ml2 import api
from neutron_lib.services.qos import base as qos
from neutron_lib.services.qos import constants as qos_constants
from oslo_config import cfg
from sqlalchemy import event as database
from sqlalchemy import inspect
from sqlalchemy.orm import object_session

from kilonova.network import hints

cfg.CONF.register_opts(
    [cfg.StrOpt("hints", default="", help="Where the role `network` listens: @NAME (this machine) or HOST:PORT")],
    group="kilonova",
)

NETWORK_TYPES = frozenset({"vxlan", "flat"})
"""Of segments that the plane can carry."""

UNWIRED_OWNERS = frozenset(
    {
        "",
        constants.DEVICE_OWNER_DHCP,
        constants.DEVICE_OWNER_ROUTER_INTF,
        constants.DEVICE_OWNER_ROUTER_GW,
        constants.DEVICE_OWNER_FLOATINGIP,
    }
)
"""Device owners whose ports nobody waits for: as Neutron's own drivers, no block is put on them."""

HINTED = {
    resources.ROUTER: "routers",
    resources.ROUTER_GATEWAY: "routers",
    resources.ROUTER_INTERFACE: "routers",
    resources.FLOATING_IP: "floatingips",
    resources.SECURITY_GROUP: "security-groups",
    resources.SECURITY_GROUP_RULE: "security-groups",
    resources.ADDRESS_GROUP: "address-groups",
}
"""What ML2 does not tell its drivers, by Neutron's callbacks."""

sender = hints.Sender("")
"""Replaced at initialisation; shared with plugin.py."""


class KilonovaMechanismDriver(api.MechanismDriver):  # type: ignore[misc]  # Neutron's: untyped
    """Entry point `kilonova` of `neutron.ml2.mechanism_drivers`."""

    def initialize(self) -> None:
        """Raises ValueError when `[kilonova] hints` is no address."""
        global sender
        sender = hints.Sender(cfg.CONF.kilonova.hints)
        for resource in HINTED:
            for event in (events.AFTER_CREATE, events.AFTER_UPDATE, events.AFTER_DELETE):
                registry.subscribe(_changed, resource, event)
        for happening, others in _BINDING_CHANGES.items():
            database.listen(models.PortBinding, happening, others)
        self.qos_driver = _QosDriver.create()

    @property
    def connectivity(self) -> str:
        return str(portbindings.CONNECTIVITY_L2)

    def bind_port(self, context: Any) -> None:
        """Bind to the first segment that the plane can carry. Called outside of transactions."""
        vnic_type = context.current.get(portbindings.VNIC_TYPE, portbindings.VNIC_NORMAL)
        if vnic_type != portbindings.VNIC_NORMAL:
            return
        for segment in context.segments_to_bind:
            if segment[api.NETWORK_TYPE] in NETWORK_TYPES:
                details = {
                    portbindings.CAP_PORT_FILTER: True,
                    portbindings.VIF_DETAILS_CONNECTIVITY: self.connectivity,
                }
                context.set_binding(
                    segment[api.ID], portbindings.VIF_TYPE_BRIDGE, details, status=constants.PORT_STATUS_DOWN
                )
                return

    def create_port_precommit(self, context: Any) -> None:
        _block(context)

    def update_port_precommit(self, context: Any) -> None:
        if context.host != context.original_host:
            _block(context)

    def create_port_postcommit(self, context: Any) -> None:
        sender.send("ports", [context.current["id"]])

    update_port_postcommit = delete_port_postcommit = create_port_postcommit

    def create_network_postcommit(self, context: Any) -> None:
        sender.send("networks", [context.current["id"]])

    update_network_postcommit = delete_network_postcommit = create_network_postcommit

    def create_subnet_postcommit(self, context: Any) -> None:
        sender.send("subnets", [context.current["id"]])

    update_subnet_postcommit = delete_subnet_postcommit = create_subnet_postcommit


def _block(context: Any) -> None:
    """Keep a port that is being bound to a host from becoming ACTIVE until its plane has it."""
    port = context.current
    if not context.host or port["status"] == constants.PORT_STATUS_ACTIVE or port["device_owner"] in UNWIRED_OWNERS:
        return
    provisioning_blocks.add_provisioning_component(
        context.plugin_context, port["id"], resources.PORT, provisioning_blocks.L2_AGENT_ENTITY
    )


def _changed(resource: str, event: str, trigger: Any, payload: Any = None) -> None:
    kind = HINTED[resource]
    if resource == resources.SECURITY_GROUP_RULE:
        sender.send(kind, [_group_of(payload)])
    else:
        sender.send(kind, [getattr(payload, "resource_id", None)])


def _group_of(payload: Any) -> str | None:
    """The security group of a rule that was made or deleted."""
    for state in reversed(getattr(payload, "states", None) or ()):
        try:
            return str(state["security_group_id"])
        except (KeyError, TypeError):
            continue
    return (getattr(payload, "metadata", None) or {}).get("security_group_id")


def _inactive_changed(mapper: Any, connection: Any, binding: Any) -> None:
    """An inactive binding came or went: ML2 tells its drivers of active ones only."""
    if binding.status == constants.INACTIVE:
        _hint_of_bindings(binding)


def _activity_changed(mapper: Any, connection: Any, binding: Any) -> None:
    if inspect(binding).attrs.status.history.has_changes():
        _hint_of_bindings(binding)


_BINDING_CHANGES = {
    "after_insert": _inactive_changed,
    "after_update": _activity_changed,
    "after_delete": _inactive_changed,
}


def _hint_of_bindings(binding: Any) -> None:
    session = object_session(binding)
    if session is not None:
        database.listen(session, "after_commit", lambda _: sender.send(hints.BINDINGS), once=True)


class _QosDriver(qos.DriverBase):  # type: ignore[misc]  # Neutron's: untyped
    """Which rules the plane enforces, and hints about policies."""

    @staticmethod
    def create() -> _QosDriver:
        limits = {
            qos_constants.MAX_KBPS: {"type:range": [0, 2**31 - 1]},
            qos_constants.MAX_BURST: {"type:range": [0, 2**31 - 1]},
            qos_constants.DIRECTION: {"type:values": constants.VALID_DIRECTIONS},
        }
        return _QosDriver(
            name="kilonova",
            vif_types=[portbindings.VIF_TYPE_BRIDGE],
            vnic_types=[portbindings.VNIC_NORMAL],
            supported_rules={qos_constants.RULE_TYPE_BANDWIDTH_LIMIT: limits},
        )

    def create_policy(self, context: Any, policy: Any) -> None:
        sender.send("policies", [policy.id])

    update_policy = delete_policy = create_policy
