"""`kilonova` without one of its guards: `MUTATION=NAME python -m tests.support.mutated ROLE ...`."""

from __future__ import annotations

import os

from tests.cluster.mutations import GUARDS
from tests.workflows.mutations import load_mutated

if __name__ == "__main__":
    load_mutated(GUARDS[os.environ["MUTATION"]].mutation)
    from kilonova.cli import main

    main()
