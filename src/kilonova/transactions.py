"""Whether this task is inside a database transaction, for those who must not be awaited there.

Apart from the database's own modules, so that a role without a database need not load them.
"""

from __future__ import annotations

import contextvars

in_transaction: contextvars.ContextVar[bool] = contextvars.ContextVar("in_transaction", default=False)


def forbid_in_transaction(what: str) -> None:
    """Raise when called inside a transaction: rows would stay locked for as long as `what` takes."""
    if in_transaction.get():
        raise RuntimeError(f"{what} must not be awaited inside a transaction")
