"""Regular expressions of callers, in time that a caller cannot stretch.

Filters of lists take regular expressions. SQLite calls back into this process for
them, where Python's own engine could be kept busy for hours by one bad expression
(and would hold the interpreter's lock all the while). The engine of the schema
validator is linear for plain expressions and counts its steps for the others.
MariaDB and PostgreSQL match by themselves, with limits of their own.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jsonschema_rs

BACKTRACK_LIMIT = 10_000


@functools.lru_cache(maxsize=256)
def _compiled(expression: str) -> jsonschema_rs.Validator | None:
    # Only the API takes expressions; other roles are 3 MiB smaller without.
    import jsonschema_rs

    try:
        return jsonschema_rs.validator_for(
            {"pattern": expression},
            pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACK_LIMIT, size_limit=1 << 20),
        )
    except (ValueError, jsonschema_rs.ValidationError):
        return None


def is_valid(expression: str) -> bool:
    return _compiled(expression) is not None


def search(expression: str, text: object) -> bool | None:
    """Whether the expression occurs in the text; None for no text, as SQL's REGEXP has it."""
    if text is None:
        return None
    validator = _compiled(expression)
    return validator is not None and validator.is_valid(str(text))
