"""The `kilonova` command."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


def main() -> None:
    """Entry point. A role's process loads no other command: it lives long, and is to be small."""
    from kilonova.cli import roles

    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in roles.COMMANDS:
        roles.run_program(name, f"kilonova {name}", sys.argv[2:])
        return
    from kilonova.cli.app import app

    guarded(lambda: app(prog_name="kilonova"))


def guarded(work: Callable[[], object]) -> None:
    """Do it. A failure that the user can act on is one line and a remedy, never a traceback."""
    from kilonova.allinone.errors import CloudError, from_os_error
    from kilonova.errors import KilonovaError

    try:
        work()
    except CloudError as error:
        _fail(error.message, error.remedy)
    except KilonovaError as error:
        _fail(error.message, None)
    except PermissionError as error:
        if error.filename is None:
            _fail("what runs there belongs to another user", "run as the user who started it, or as root")
        told = from_os_error(error, Path(str(error.filename)))
        _fail(told.message, told.remedy)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if (message := _of_database(error)) is None:
            raise
        _fail(message, "kilonova doctor looks whether it can be reached and has its tables")


def _of_database(error: Exception) -> str | None:
    """What it says when it cannot be reached or used, in a line; None for any other failure."""
    if "sqlalchemy" not in sys.modules:
        return None
    from sqlalchemy.exc import DBAPIError, ProgrammingError

    from kilonova.db.engine import is_away

    if not (is_away(error) or isinstance(error, ProgrammingError)):
        return None
    told = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = str(told.args[-1] if told.args else "").splitlines()
    return f"the database does not answer: {lines[0] if lines else type(told).__name__}"


def _fail(message: str, remedy: str | None) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    if remedy:
        print(f"what to do: {remedy}", file=sys.stderr)
    sys.exit(1)
