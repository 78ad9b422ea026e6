"""radvd's file for one router. Pure."""

from __future__ import annotations

from kilonova.network.plan import RouterPlan
from kilonova.network.plane import names

_INTERFACE = """\
interface {device} {{
  AdvSendAdvert on;
  MinRtrAdvInterval 30;
  MaxRtrAdvInterval 100;
  AdvLinkMTU {mtu};
  AdvManagedFlag {managed};
  AdvOtherConfigFlag {other};
{prefixes}{dns}}};
"""


def configuration(plan: RouterPlan) -> str | None:
    """None when the router advertises nothing."""
    parts = []
    for port in plan.ports:
        here = [each for each in plan.advertised if each.port_id == port.id]
        if not here:
            continue
        modes = {each.mode for each in here}
        servers = [server for each in here for server in each.dns if ":" in server]
        prefixes = "".join(
            f"  prefix {each.prefix} {{ AdvOnLink on; AdvAutonomous {_switch(each.mode != 'dhcpv6-stateful')}; }};\n"
            for each in here
        )
        parts.append(
            _INTERFACE.format(
                device=names.INSIDE + port.id[:11],
                mtu=port.mtu,
                managed=_switch("dhcpv6-stateful" in modes),
                other=_switch("dhcpv6-stateless" in modes),
                prefixes=prefixes,
                dns=f"  RDNSS {' '.join(servers)} {{ }};\n" if servers else "",
            )
        )
    return "".join(parts) or None


def _switch(on: bool) -> str:
    return "on" if on else "off"
