"""GET /os-instance_usage_audit_log: hosts do not audit usage here, and so it says of all that they have not run."""

from __future__ import annotations

import datetime as dt
from typing import Any

from kilonova.api.requests import Request
from kilonova.compute.hosts import list_services
from kilonova.db.hosts import COMPUTE
from kilonova.errors import Invalid


async def index(request: Request) -> dict[str, Any]:
    return {"instance_usage_audit_logs": await _log(request, request.runtime.world.now())}


async def show(request: Request) -> dict[str, Any]:
    text = request.params["id"]
    form = "%Y-%m-%d %H:%M:%S.%f" if "." in text else "%Y-%m-%d %H:%M:%S"
    try:
        before = dt.datetime.strptime(text, form)  # noqa: DTZ007 - naive UTC, as everywhere
    except ValueError:
        raise Invalid(f"Invalid timestamp for date {text}") from None
    return {"instance_usage_audit_log": await _log(request, before)}


async def _log(request: Request, before: dt.datetime) -> dict[str, Any]:
    begin, end = last_month(before)
    hosts = [service.host for service in await list_services(request.runtime, binary=COMPUTE)]
    return {
        "period_beginning": str(begin),
        "period_ending": str(end),
        "num_hosts": len(hosts),
        "num_hosts_done": 0,
        "num_hosts_running": 0,
        "num_hosts_not_run": len(hosts),
        "hosts_not_run": hosts,
        "total_instances": 0,
        "total_errors": 0,
        "overall_status": f"{'0 of ' + str(len(hosts)) if hosts else 'ALL'} hosts done. 0 errors.",
        "log": {},
    }


def last_month(before: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """Begin and end of the last calendar month that was over before then."""
    end = before.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    if end >= before:
        end = _month_before(end)
    return _month_before(end), end


def _month_before(first: dt.datetime) -> dt.datetime:
    return (first - dt.timedelta(days=1)).replace(day=1)
