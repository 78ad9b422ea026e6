"""The table of operations: complete, unambiguous, and free of bare versions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import kilonova.api
from kilonova.api.policy_rules import RULES
from kilonova.api.routes import ROUTES
from kilonova.api.routing import Action, Endpoint, Router, route
from kilonova.api.unbuilt import UNBUILT
from kilonova.api.versions import LEGACY, MAX, Version

GOLDEN = Path(__file__).parent / "golden" / "routes.txt"
API = Path(kilonova.api.__file__).parent
# The modules that make versions what they are.
MACHINERY = {"versions.py", "fields.py", "routing.py", "validation.py", "app.py", "requests.py"}


def listing() -> list[str]:
    lines = []
    for operation in ROUTES:
        until = "" if operation.last == MAX else str(operation.last)
        since = "2.1" if operation.first == LEGACY else str(operation.first)
        what = f"POST {operation.path} {operation.key}" if isinstance(operation, Action) else ""
        what = what or f"{operation.method} {operation.path}"  # type: ignore[union-attr]
        statuses = sorted({operation.status_at(Version(2, minor)) for minor in range(1, MAX.minor + 1)})
        lines.append(f"{what} [{since}-{until}] {'/'.join(map(str, statuses))} {operation.operation}")
    return sorted(lines)


def test_the_operations_are_those_that_clients_know() -> None:
    """After a wanted change: `python tests/api/test_routes.py` writes the list anew."""
    assert listing() == GOLDEN.read_text().splitlines()


def test_every_rule_that_an_operation_names_exists() -> None:
    assert [operation.operation for operation in ROUTES if operation.policy and operation.policy not in RULES] == []


def test_an_operation_takes_no_body_without_a_schema() -> None:
    """Every POST and PUT says what it takes, so that nothing unknown gets in."""
    unchecked = [
        operation.operation
        for operation in ROUTES
        if (isinstance(operation, Action) or operation.method in ("POST", "PUT"))
        and operation.body is None
        and operation not in UNBUILT
    ]
    assert unchecked == ["servers:resetNetwork", "servers:os-getRDPConsole"], "these two are refused whatever they say"


def test_every_get_says_which_parameters_it_takes() -> None:
    unchecked = [
        operation.operation
        for operation in ROUTES
        if not isinstance(operation, Action) and operation.method == "GET" and operation.query is None
    ]
    assert unchecked == []


def test_every_schema_compiles_at_every_version() -> None:
    for operation in ROUTES:
        for minor in range(operation.first.minor, operation.last.minor + 1):
            for schema in (operation.body, operation.query):
                if schema is not None:
                    schema.at(Version(2, minor))


async def _nothing(request: object) -> None:
    return None


def test_two_operations_at_one_place_and_version_are_refused() -> None:
    first = route("GET", "/a/{id}", _nothing, "a", until="2.10")
    with pytest.raises(ValueError, match="same place"):
        Router([first, route("GET", "/a/{other}", _nothing, "b", since="2.10")])
    Router([first, route("GET", "/a/{other}", _nothing, "b", since="2.11")])


def _found(router: Router, path: str) -> tuple[Endpoint, dict[str, str], str | None]:
    found = router.find("GET", path)
    assert found is not None, path
    return found


def test_a_word_in_a_path_wins_over_a_parameter_where_it_leads_on() -> None:
    router = Router([route("GET", path, _nothing, path) for path in ("/f/detail", "/f/{id}", "/f/{id}/specs")])
    assert _found(router, "/f/detail")[1] == {}
    assert _found(router, "/f/x")[1] == {"id": "x"}
    assert _found(router, "/f/detail/specs")[1] == {"id": "detail"}


def test_a_project_may_stand_in_front() -> None:
    router = Router([route("GET", "/f/{id}", _nothing, "f")])
    assert _found(router, "/0123abc-d/f/x")[1:] == ({"id": "x"}, "0123abc-d")
    assert router.find("GET", "/notaproject/f/x") is None
    assert router.find("GET", "/f/x/") is None
    assert router.find("GET", "/f//") is None


def _is_version(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "version"


def _is_named(node: ast.expr) -> bool:
    """`versions.SERVER_TAGS`, or `since` and `until` of a table."""
    return isinstance(node, ast.Attribute) and (
        (isinstance(node.value, ast.Name) and node.value.id == "versions") or node.attr in ("since", "until")
    )


def test_no_handler_compares_versions_with_numbers() -> None:
    bare = []
    for path in sorted(API.rglob("*.py")):
        if path.name in MACHINERY and path.parent == API:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.relative_to(API)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                if any(map(_is_version, sides)) and not all(_is_version(side) or _is_named(side) for side in sides):
                    bare.append(where)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Version":
                bare.append(where)
    assert bare == []


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text("\n".join(listing()) + "\n")
