"""Errors as HTTP answers: the one place where a status meets its body."""

from __future__ import annotations

import msgspec

from kilonova.errors import KilonovaError

_NAMES = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}

NO_SUCH_PATH = "The resource could not be found."


class HttpError(KilonovaError):
    """An answer that only the HTTP layer knows, as 404 for a path or 415."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def body(status: int, message: str) -> bytes:
    """The standard error body; a status without a name of its own is a `computeFault`."""
    return msgspec.json.encode({_NAMES.get(status, "computeFault"): {"code": status, "message": message}})


def unexpected(request_id: str) -> str:
    """What a caller is told of a failure of ours: nothing but where to find it in the log."""
    return f"Unexpected API Error. The operator finds it in the log under the request ID {request_id}."
