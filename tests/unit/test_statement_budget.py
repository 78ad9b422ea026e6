"""How many statements Compute sends is a promise of docs/performance.md; times are for `make bench`."""

from __future__ import annotations

from pathlib import Path

from bench import statements


async def test_requests_and_operations_stay_within_their_budgets_of_statements(tmp_path: Path) -> None:
    async with statements.bench(tmp_path) as made:
        counted = await statements.count_life(made) | await statements.count_requests(made)
    (tmp_path / "ports").mkdir()
    with_ports, calls = await statements.count_ports(tmp_path / "ports")
    counted |= with_ports
    assert counted.keys() == statements.BUDGETS.keys()
    over = {
        name: [text.split("\n")[0][:80] for text in found.data]
        for name, found in counted.items()
        if len(found.data) > statements.BUDGETS[name]
    }
    assert not over
    assert calls.keys() == statements.CALLS.keys()
    many = {name: found.calls for name, found in calls.items() if found.calls.total() > statements.CALLS[name]}
    assert not many


async def test_a_list_costs_the_same_statements_at_any_length(tmp_path: Path) -> None:
    async with statements.bench(tmp_path) as made:
        one = await made.counted("GET", "/servers/detail?limit=1")
        for _ in range(3):
            await made.settled(await made.create())
        four = await made.counted("GET", "/servers/detail?limit=4")
    assert [text.split("(")[0] for text in one.data] == [text.split("(")[0] for text in four.data]
    assert len(one.data) <= statements.BUDGETS["GET /servers/detail, 1 server"]
