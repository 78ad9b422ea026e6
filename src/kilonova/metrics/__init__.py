"""What every role counts, and the listener that shows it (docs/observability.md).

`families` holds all metrics with their labels, `serving` is the one line by which a
role shows them. Labels are bounded: route templates, kinds, steps, verbs; never ids or paths.
"""

from __future__ import annotations

from kilonova.metrics.families import REGISTRY
from kilonova.metrics.listener import ROLES, MetricsSettings, Probe, serving

__all__ = ["REGISTRY", "ROLES", "MetricsSettings", "Probe", "serving"]
