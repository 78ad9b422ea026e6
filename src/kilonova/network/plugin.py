"""Neutron's service plugins of ours, loaded by Neutron's process: routers without agents, and reports from the planes.

The role `network` reports by POST /v2.0/plane-reports (extensions/planereport.py) what the hosts' planes have done:
ports wired or gone, routers and floating IPs in place. Imports the standard library and Neutron only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from keystoneauth1 import loading
from neutron.api import extensions
from neutron.db import provisioning_blocks
from neutron.db.models import l3 as l3_models
from neutron.plugins.ml2 import db as ml2_db
from neutron.plugins.ml2 import models as ml2_models
from neutron.services.l3_router import l3_router_plugin
from neutron.services.segments import plugin as segments
from neutron_lib import constants
from neutron_lib.callbacks import resources
from neutron_lib.db import api as db_api
from neutron_lib.plugins import constants as plugin_constants
from neutron_lib.plugins import directory
from neutron_lib.services import base
from oslo_config import cfg

from kilonova.network import ml2

extensions.append_api_extensions_path([str(Path(__file__).with_name("extensions"))])

_NEEDS_AGENTS = frozenset(
    {
        "dvr",
        "l3-ha",
        "l3_agent_scheduler",
        "network_ha",
        "router-admin-state-down-before-update",
        "router_availability_zone",
        "floating-ip-port-forwarding-detail",
        "qos-fip",
        "qos-gateway-ip",
    }
)


EVENTS_PAUSE = 0.05
"""Seconds for which events to Compute are gathered. Neutron's option has a least of one; boots would wait for it."""


class KilonovaRouterPlugin(l3_router_plugin.L3RouterPlugin):  # type: ignore[misc]  # Neutron's: untyped
    """Neutron's routers and floating IPs without what only its own L3 agents can do."""

    @property
    def supported_extension_aliases(self) -> list[str]:
        return [alias for alias in super().supported_extension_aliases if alias not in _NEEDS_AGENTS]


class KilonovaPlugin(base.ServicePluginBase):  # type: ignore[misc]  # Neutron's: untyped
    """Takes the planes' reports."""

    supported_extension_aliases = ("plane-report",)

    def __init__(self) -> None:
        super().__init__()
        notifier = directory.get_plugin().nova_notifier
        if notifier:
            notifier.batch_notifier.batch_interval = EVENTS_PAUSE
        _forget_placement()

    def get_plugin_type(self) -> str:
        return "KILONOVA_PLANE"

    def get_plugin_description(self) -> str:
        return "Reports from the planes on the hosts"

    def report(
        self, context: Any, *, ports: list[dict[str, str]], routers: dict[str, str], floatingips: dict[str, str]
    ) -> list[str]:
        """`ports`: each with `id`, `host`, `status` (ACTIVE or DOWN); the others: statuses by id.

        Returns the ids that are not known (any more). No hints are sent: who reports knows it already.
        """
        unknown = []
        with ml2.sender.quiet():
            for port in ports:
                if not self._report_port(context, port["id"], port["host"], port["status"]):
                    unknown.append(port["id"])
            for router_id, status in routers.items():
                if not _set_router_status(context, router_id, status):
                    unknown.append(router_id)
            l3 = directory.get_plugin(plugin_constants.L3)
            for floating_id, status in floatingips.items():
                if l3.update_floatingip_status(context, floating_id, status) is None:
                    unknown.append(floating_id)
        return unknown

    def inactive_bindings(self, context: Any) -> list[dict[str, str]]:
        """Where ports have a binding besides the one that counts: `port_id` and `host`, `id` made of both."""
        with db_api.CONTEXT_READER.using(context):
            table = ml2_models.PortBinding
            found = context.session.query(table.port_id, table.host).filter_by(status=constants.INACTIVE).all()
        return [{"id": f"{port_id}/{host}", "port_id": port_id, "host": host} for port_id, host in found if host]

    def _report_port(self, context: Any, port_id: str, host: str, status: str) -> bool:
        core = directory.get_plugin()
        bound = core.port_bound_to_host(context, port_id, host)
        if bound and status == constants.PORT_STATUS_ACTIVE:
            provisioning_blocks.provisioning_complete(
                context, port_id, resources.PORT, provisioning_blocks.L2_AGENT_ENTITY
            )
            return True
        if bound:
            core.update_port_status(context, port_id, constants.PORT_STATUS_DOWN, host)
            return True
        port = ml2_db.get_port(context, port_id)
        if port is None:
            return False
        # Of a port that has moved on, its old host says nothing of interest; a live migration's destination is ready
        # before the port is bound there, and Compute waits for this.
        moving = status == constants.PORT_STATUS_ACTIVE and port.device_owner.startswith(
            constants.DEVICE_OWNER_COMPUTE_PREFIX
        )
        if moving and core.nova_notifier:
            core.nova_notifier.notify_port_active_direct(port)
        return True


def _forget_placement() -> None:
    """Where no Placement is configured, Neutron tells it nothing; else it logs a failure for each network that goes."""
    loading.register_auth_conf_options(cfg.CONF, "placement")
    if not cfg.CONF.placement.auth_type:
        segments.NovaSegmentNotifier._send_notifications = lambda *_: None


def _set_router_status(context: Any, router_id: str, status: str) -> bool:
    with db_api.CONTEXT_WRITER.using(context):
        router = context.session.query(l3_models.Router).filter_by(id=router_id).one_or_none()
        if router is not None:
            router.status = status
    return router is not None
