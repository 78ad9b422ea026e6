"""The `kilonova` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point. A failure that the user can act on is one line and a remedy, never a traceback."""
    from kilonova.allinone.errors import CloudError
    from kilonova.cli.app import app
    from kilonova.errors import KilonovaError

    try:
        app(prog_name="kilonova")
    except CloudError as error:
        _fail(error.message, error.remedy)
    except KilonovaError as error:
        _fail(error.message, None)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str, remedy: str | None) -> None:
    print(f"error: {message}", file=sys.stderr)
    if remedy:
        print(f"what to do: {remedy}", file=sys.stderr)
    sys.exit(1)
