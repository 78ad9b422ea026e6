"""`python -m kilonova.cli`."""

from __future__ import annotations

from kilonova.cli import main

main()
