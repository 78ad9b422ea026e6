"""What is shown and alerted on is there: queries name metrics and labels that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from kilonova.metrics import REGISTRY, families
from kilonova.metrics.listener import PORTS

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana").glob("*.json"))
OURS = [metric for metric in vars(families).values() if isinstance(metric, MetricWrapperBase)]
_METRIC = re.compile(r"\b((?:kilonova|process|python)_[a-z0-9_]+)\s*(?:\{([^}]*)\})?")
_LABEL = re.compile(r"\b([a-z_]+)\s*(?:=~|!~|!=|=)")
_BY = re.compile(r"\bby \(([^)]*)\)")
_LEGEND = re.compile(r"\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}")


def samples() -> dict[str, set[str]]:
    """Names of samples as they are scraped, with their labels."""
    found: dict[str, set[str]] = {}
    for metric in OURS:
        names = set(metric._labelnames)
        for family in metric.describe():
            suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
            for suffix in suffixes:
                found[family.name + suffix] = names | ({"le"} if suffix == "_bucket" else set())
    for family in REGISTRY.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


KNOWN = samples()
ADDED = {"instance", "job"}
"""Labels that Prometheus adds."""


def check(query: str, legend: str = "") -> None:
    used = _METRIC.findall(query)
    assert used, f"no metric in {query!r}"
    allowed = set(ADDED)
    for name, matchers in used:
        assert name in KNOWN, f"{name} in {query!r} does not exist"
        wrong = set(_LABEL.findall(matchers)) - KNOWN[name] - ADDED
        assert not wrong, f"{name} has no label {wrong} ({query!r})"
        allowed |= KNOWN[name]
    grouped = {label.strip() for labels in _BY.findall(query) for label in labels.split(",")}
    assert grouped <= allowed, f"{query!r} groups by {grouped - allowed}"
    shown = set(_LEGEND.findall(legend))
    assert shown <= (grouped - {"le"} if grouped else allowed), f"{legend!r} shows what {query!r} has not"


def queries(panels: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for panel in panels:
        for target in panel.get("targets", ()):
            yield target["expr"], target["legendFormat"]
        yield from queries(panel.get("panels", []))


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_dashboards_ask_for_metrics_and_labels_that_exist(path: Path) -> None:
    document = json.loads(path.read_text())
    asked = list(queries(document["panels"]))
    assert len(asked) > 20
    for query, legend in asked:
        check(query, legend)
    for variable in document["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
            assert match
            assert match[1] in KNOWN
            assert match[2] in KNOWN[match[1]] | ADDED
    ids = [panel["id"] for panel in document["panels"]]
    assert len(set(ids)) == len(ids)


def test_the_dashboard_shows_every_metric_of_ours() -> None:
    text = "".join(path.read_text() for path in DASHBOARDS)
    for metric in OURS:
        for family in metric.describe():
            assert family.name in text, f"{family.name} is shown nowhere"


def test_alerts_ask_for_metrics_and_labels_that_exist() -> None:
    document = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())
    rules = [rule for group in document["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 3
    for rule in rules:
        check(rule["expr"])


def test_scraping_names_the_ports_that_roles_have() -> None:
    (job,) = yaml.safe_load((DEPLOY / "prometheus/scrape.yml").read_text())
    lines = (DEPLOY / "prometheus/scrape.yml").read_text().splitlines()
    named = {line.split("#")[1].strip(): line for line in lines if "targets" in line}
    assert len(named) == len(job["static_configs"])
    for role, line in named.items():
        assert f':{PORTS[role]}"' in line


def test_a_query_that_names_nothing_is_noticed() -> None:
    with pytest.raises(AssertionError, match="does not exist"):
        check("rate(kilonova_nothing_total[5m])")
    with pytest.raises(AssertionError, match="has no label"):
        check('kilonova_requests_total{path="/servers"}')
    with pytest.raises(AssertionError, match="groups by"):
        check("sum by (server) (kilonova_requests_total)")
