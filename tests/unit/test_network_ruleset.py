"""nft's transactions, run on a model of nft that refuses what the kernel refuses."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from kilonova.network.plane.ruleset import Chain, Ruleset, Set, Table, difference, replace


class Kernel:
    """Tables as the kernel has them. Raises AssertionError for what it answers with an error."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, dict[str, list[str]]]] = {}

    def run(self, lines: Iterable[str]) -> None:
        for line in lines:
            verb, kind, rest = line.split(" ", 2)
            words = rest.split(" ", 3)
            table = " ".join(words[:2])
            match (verb, kind):
                case ("add", "table"):
                    self.tables.setdefault(table, {"chains": {}, "sets": {}})
                case ("delete", "table"):
                    del self.tables[table]
                case ("add", "chain"):
                    assert words[2] not in self.tables[table]["chains"]
                    self.tables[table]["chains"][words[2]] = []
                case ("add", "set" | "map"):
                    assert words[2] not in self.tables[table]["sets"]
                    self.tables[table]["sets"][words[2]] = []
                case ("flush", "chain"):
                    self.tables[table]["chains"][words[2]].clear()
                case ("flush", "set"):
                    self.tables[table]["sets"][words[2]].clear()
                case ("add", "rule"):
                    self._refers(table, words[3])
                    self.tables[table]["chains"][words[2]].append(words[3])
                case ("add" | "delete", "element"):
                    self._element(verb, table, words[2], words[3])
                case ("delete", "chain"):
                    assert not self._users(table, "jump " + words[2])
                    del self.tables[table]["chains"][words[2]]
                case ("delete", "set" | "map"):
                    assert not self._users(table, "@" + words[2])
                    del self.tables[table]["sets"][words[2]]
                case _:
                    raise AssertionError(line)

    def _element(self, verb: str, table: str, name: str, text: str) -> None:
        elements = self.tables[table]["sets"][name]
        for each in text.strip("{} ").split(", "):
            key = each.partition(" : ")[0]
            there = [other for other in elements if other.partition(" : ")[0] == key]
            if verb == "delete":
                assert there
                elements.remove(there[0])
            else:
                assert not there
                self._refers(table, each)
                elements.append(each)

    def _refers(self, table: str, text: str) -> None:
        assert set(re.findall(r"jump (\S+)", text)) <= set(self.tables[table]["chains"])
        assert set(re.findall(r"@(\S+)", text)) <= set(self.tables[table]["sets"])

    def _users(self, table: str, name: str) -> list[str]:
        found = self.tables[table]
        texts = [text for each in (*found["chains"].values(), *found["sets"].values()) for text in each]
        return [text for text in texts if name in text.split() or text.endswith(name)]

    def has(self, rules: Ruleset) -> bool:
        wanted = {
            " ".join(key): {
                "chains": {name: list(chain.rules) for name, chain in table.chains.items()},
                "sets": {name: sorted(each.elements) for name, each in table.sets.items()},
            }
            for key, table in rules.items()
        }
        there = {
            key: {"chains": found["chains"], "sets": {name: sorted(each) for name, each in found["sets"].items()}}
            for key, found in self.tables.items()
        }
        return there == wanted


NAMES = ("a", "b", "c")


@st.composite
def rulesets(draw: st.DrawFn) -> Ruleset:
    """Leaf chains, chains that jump to them, sets, and a map to chains."""
    leaves = draw(st.sets(st.sampled_from(NAMES)))
    members = draw(st.sets(st.sampled_from(NAMES)))
    plain = st.lists(
        st.sampled_from(("accept", "drop", *(f"ip saddr @m{name} accept" for name in members))), max_size=3
    )
    chains = {f"leaf-{name}": Chain(tuple(draw(plain))) for name in leaves}
    jumps = st.lists(st.sampled_from([f"jump leaf-{name}" for name in sorted(leaves)] or ["drop"]), max_size=2)
    for name in draw(st.sets(st.sampled_from(NAMES))):
        chains[f"port-{name}"] = Chain(tuple(draw(jumps)))
    sets = {
        f"m{name}": Set(
            "set", "type ipv4_addr; flags interval;", frozenset(draw(st.sets(st.sampled_from("123")))), whole=True
        )
        for name in members
    }
    targets = [name for name in chains if name.startswith("port-")] or ["base"]
    keys = draw(st.sets(st.sampled_from("789")))
    elements = frozenset(f"{key} : jump {draw(st.sampled_from(targets))}" for key in sorted(keys))
    sets["own"] = Set("map", "type mark : verdict;", elements)
    chains["base"] = Chain(("meta mark vmap @own",), hook="type filter hook forward priority 0;")
    return {("inet", "t"): Table(chains, sets)}


@settings(max_examples=400, deadline=None)
@given(st.lists(rulesets(), min_size=1, max_size=4))
def test_every_transaction_is_accepted_and_leads_where_it_should(steps: list[Ruleset]) -> None:
    kernel = Kernel()
    kernel.run(replace(steps[0]))
    assert kernel.has(steps[0])
    for old, new in itertools.pairwise(steps):
        kernel.run(difference(old, new))
        assert kernel.has(new)
    kernel.run(replace(steps[0]))
    assert kernel.has(steps[0])


def test_what_is_the_same_costs_nothing() -> None:
    rules: Ruleset = {("ip", "t"): Table({"c": Chain(("drop",))}, {"s": Set("set", "type ifname;", frozenset({"x"}))})}
    assert list(difference(rules, rules)) == []


def test_one_rule_more_touches_one_chain() -> None:
    chains = {f"in-{number}": Chain(("accept",)) for number in range(100)}
    old: Ruleset = {("inet", "t"): Table(chains)}
    new: Ruleset = {("inet", "t"): Table(chains | {"in-7": Chain(("accept", "drop"))})}
    assert list(difference(old, new)) == [
        "flush chain inet t in-7",
        "add rule inet t in-7 accept",
        "add rule inet t in-7 drop",
    ]
