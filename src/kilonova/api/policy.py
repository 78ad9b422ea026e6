"""Who may do what: oslo.policy with the usual rules, asked once for each kind of caller.

Decisions are kept by rule, roles and the ids that a rule can compare, so that an operator's policy.yaml
keeps working and a request costs a look-up. The file is looked at again every few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from oslo_config import cfg
from oslo_policy import _checks
from oslo_policy import policy as oslo_policy

from kilonova.api.policy_rules import RULES
from kilonova.context import RequestContext

_CACHE_SIZE = 20_000
_LOOK_AGAIN = 5.0


def _late(point: EntryPoint) -> Callable[[str, str], oslo_policy.Check]:
    def check(kind: str, match: str) -> oslo_policy.Check:
        made: oslo_policy.Check = point.load()(kind, match)
        return made

    return check


# Else the first rule that is read loads them all, and with those that ask a server a second HTTP client.
_checks.extension_checks = {point.name: _late(point) for point in entry_points(group="oslo.policy.rule_checks")}


class Policy:
    """`policy_file`: an operator's overrides, YAML or JSON; it need not exist (yet)."""

    def __init__(self, policy_file: Path | None = None) -> None:
        conf = cfg.ConfigOpts()
        conf([], project="kilonova", default_config_files=[], default_config_dirs=[])
        self._file = policy_file
        self._enforcer = oslo_policy.Enforcer(
            conf, policy_file=str(policy_file) if policy_file else None, use_conf=True
        )
        self._enforcer.suppress_default_change_warnings = True
        self._enforcer.suppress_deprecation_warnings = True
        self._enforcer.register_defaults([oslo_policy.RuleDefault(name, check) for name, check in RULES.items()])
        self._enforcer.load_rules()
        self._decisions: dict[tuple[Any, ...], bool] = {}
        self._admins: dict[frozenset[str], bool] = {}
        self._stamp = self._file_stamp()
        self._looked = time.monotonic()

    def _file_stamp(self) -> tuple[float, int] | None:
        if self._file is None:
            return None
        try:
            stat = self._file.stat()
        except OSError:
            return None
        return stat.st_mtime, stat.st_size

    def _refresh(self) -> None:
        now = time.monotonic()
        if self._file is None or now - self._looked < _LOOK_AGAIN:
            return
        self._looked = now
        if self._file_stamp() != self._stamp:
            self.reload()

    def reload(self) -> None:
        """Read the file again."""
        self._stamp = self._file_stamp()
        self._enforcer.load_rules(force_reload=True)
        self._decisions.clear()
        self._admins.clear()

    def is_admin(self, roles: frozenset[str]) -> bool:
        """By the rule `context_is_admin`."""
        decision = self._admins.get(roles)
        if decision is None:
            decision = self._admins[roles] = bool(
                self._enforcer.enforce("context_is_admin", {}, {"roles": list(roles), "is_admin": False})
            )
        return decision

    def allows(self, rule: str, context: RequestContext, target: Mapping[str, Any] | None = None) -> bool:
        self._refresh()
        rest: tuple[tuple[str, Any], ...] = ()
        if target is None:
            project_id, user_id = context.project_id, context.user_id
        else:
            project_id = target.get("project_id", "")
            user_id = target.get("user_id", "")
            rest = tuple(sorted(item for item in target.items() if item[0] not in ("project_id", "user_id")))
        key = (rule, context.roles, context.project_id, context.user_id, project_id, user_id, rest,
               context.is_admin, context.service_roles)  # fmt: skip
        decision = self._decisions.get(key)
        if decision is None:
            if len(self._decisions) >= _CACHE_SIZE:
                self._decisions.clear()
            if rule not in self._enforcer.registered_rules and rule not in self._enforcer.rules:
                raise LookupError(f"no policy rule {rule}")
            subject = {"project_id": project_id, "user_id": user_id, **dict(rest)}
            decision = self._decisions[key] = bool(self._enforcer.enforce(rule, subject, _credentials(context)))
        return decision


def _credentials(context: RequestContext) -> dict[str, Any]:
    return {
        "user_id": context.user_id,
        "project_id": context.project_id,
        "tenant_id": context.project_id,
        "roles": list(context.roles),
        "is_admin": context.is_admin,
        "user_domain_id": context.user_domain_id,
        "project_domain_id": context.project_domain_id,
        "service_roles": list(context.service_roles),
    }
