"""nft's tables in one namespace: applied by difference, or as a whole when somebody else has changed anything."""

from __future__ import annotations

from kilonova.errors import HostFailure
from kilonova.network.plane import events
from kilonova.network.plane.ruleset import Ruleset, difference, replace
from kilonova.network.plane.shell import Shell


class Nft:
    """Nothing of what is there is read: the kernel counts changes, and as long as the count is ours, so are the tables.

    Connections under way are not touched by either way of applying.
    """

    def __init__(self, shell: Shell, space: str) -> None:
        self._shell = shell
        self._space = space
        self._applied: Ruleset | None = None
        self._generation = -1

    def apply(self, wanted: Ruleset) -> bool:
        """Whether anything had to be done. Raises HostFailure."""
        try:
            before = events.generation(self._space)
            untouched = self._applied is not None and before == self._generation
            if untouched and self._applied == wanted:
                return False
            old, self._applied = self._applied, None
            lines = list(difference(old, wanted) if untouched and old is not None else replace(wanted))
            if lines:
                self._shell.nft(self._space, lines)
            self._generation = events.generation(self._space)
        except OSError as error:
            raise HostFailure("The network plane could not see the host's rules.", details=repr(error)) from error
        # Should somebody have changed something just now, the next time replaces everything.
        self._generation = self._generation if self._generation == before + bool(lines) else -1
        self._applied = wanted
        return True
