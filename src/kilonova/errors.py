"""The errors of the domain: one family, mapped to HTTP once (api/errors.py).

`message` is for the caller: it names the field, the value and what would be
accepted, and never a class or a table. `details` goes to the log only.
"""

from __future__ import annotations


class KilonovaError(Exception):
    """Base of all errors that a caller may be told about."""

    status = 500

    def __init__(self, message: str, *, details: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class Invalid(KilonovaError):
    """The request can never succeed as it stands."""

    status = 400


class Unauthorized(KilonovaError):
    status = 401


class Forbidden(KilonovaError):
    status = 403


class OverQuota(Forbidden):
    """A project's limit would be exceeded."""


class NotFound(KilonovaError):
    status = 404


class Conflict(KilonovaError):
    """The resource exists but is in the wrong state, or somebody else changed it first."""

    status = 409


class Stale(Conflict):
    """A guarded update met a row that another writer had changed."""


class TooLarge(KilonovaError):
    status = 413


class NotImplementedHere(KilonovaError):
    """The deployment or this release cannot do what is asked; nothing was changed."""

    status = 501


class Unavailable(KilonovaError):
    """A service that the request needs does not answer; trying again may help."""

    status = 503


class Transient(KilonovaError):
    """An effect failed in a way that a later attempt may not; the engine backs off and tries again."""


class HostFailure(KilonovaError):
    """A host could not do its part; another host may."""


class NoValidHost(KilonovaError):
    """The scheduler found no host; `message` says how many hosts each filter removed."""
