"""Files of certificates, looked at before a role serves: what is wrong with them is said in words."""

from __future__ import annotations

import ssl
from pathlib import Path

from kilonova.errors import Invalid

Pair = tuple[str, str]
"""(certificate, key), files in PEM; both may be in one."""


def usable(place: str, pair: Pair) -> Pair:
    """The pair. `place`: its options, for errors. Raises Invalid for files that no listener could use."""
    for file in pair:
        if not Path(file).is_file():
            raise Invalid(f"Configuration: {place}: {file} does not exist.")
    context(place, pair)
    return pair


def context(place: str, pair: Pair) -> ssl.SSLContext:
    """For a listener. Raises Invalid."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate, key = pair
    try:
        made.load_cert_chain(certificate, key, password=_none)
    except _Encrypted:
        raise Invalid(f"Configuration: {place}: the key {key} needs a password: use one without.") from None
    except ssl.SSLError as error:
        reason = "the key is another certificate's" if "MISMATCH" in str(error) else "no certificate and key in PEM"
        raise Invalid(f"Configuration: {place}: {certificate}, {key}: {reason} ({error.reason or error}).") from error
    except OSError as error:
        raise Invalid(f"Configuration: {place}: {certificate}, {key} cannot be read: {error.strerror}.") from error
    return made


def renew(context: ssl.SSLContext, pair: Pair | None) -> None:
    """Connections from now on get this certificate; without one they keep what they had."""
    if pair is not None:
        context.load_cert_chain(*pair)


class _Encrypted(Exception):
    pass


def _none() -> str:
    # Without this OpenSSL would ask whoever sits at the terminal.
    raise _Encrypted
