"""TLS to the database, as its URL asks for it: files and how strictly its certificate is looked at."""

from __future__ import annotations

import ssl
from typing import Literal

import sqlalchemy as sa

from kilonova.errors import Invalid

_MYSQL = (
    "ssl",
    "ssl_ca",
    "ssl_capath",
    "ssl_cert",
    "ssl_key",
    "ssl_cipher",
    "ssl_verify_cert",
    "ssl_verify_identity",
    "ssl_check_hostname",
    "ssl_disabled",
)
_POSTGRESQL = ("sslmode", "sslrootcert", "sslcert", "sslkey")
_UNVERIFIED = "require"
_MODES = ("disable", "allow", "prefer", _UNVERIFIED, "verify-ca", "verify-full")
_NO = ("0", "no", "off", "false")


def split(url: sa.URL) -> tuple[sa.URL, ssl.SSLContext | Literal[False] | None]:
    """The URL without what it says of TLS, and the context to connect with.

    None: what the driver does by itself: none with MariaDB; where a PostgreSQL has it, TLS without a look at the
    certificate. False: no TLS in any case.

    A certificate is verified, by the system's authorities where none are named, unless the URL says it need not be.
    Raises Invalid for a file that cannot be used, and for an unknown sslmode.
    """
    names = _POSTGRESQL if url.get_backend_name() == "postgresql" else _MYSQL
    said = {name: str(url.query[name]) for name in names if name in url.query}
    rest = url.difference_update_query(names)
    if url.get_backend_name() == "postgresql":
        return rest, _postgresql(said)
    if not said or _no(said.get("ssl")) or ("ssl_disabled" in said and not _no(said["ssl_disabled"])):
        return rest, None
    verify = not _no(said.get("ssl_verify_cert"))
    exact = not _no(said.get("ssl_check_hostname")) and not _no(said.get("ssl_verify_identity"))
    return rest, _context(
        verify=verify,
        exact=exact,
        authorities=said.get("ssl_ca"),
        directory=said.get("ssl_capath"),
        certificate=said.get("ssl_cert"),
        key=said.get("ssl_key"),
        ciphers=said.get("ssl_cipher"),
    )


def _postgresql(said: dict[str, str]) -> ssl.SSLContext | Literal[False] | None:
    mode = said.get("sslmode", "verify-full" if said else "prefer")
    if mode not in _MODES:
        raise Invalid(f"[database] connection: sslmode={mode}: known are {', '.join(_MODES)}.")
    if mode == "disable":
        return False
    if mode in ("allow", "prefer"):
        return None
    return _context(
        verify=mode != _UNVERIFIED or "sslrootcert" in said,
        exact=mode == "verify-full",
        authorities=said.get("sslrootcert"),
        certificate=said.get("sslcert"),
        key=said.get("sslkey"),
    )


def _no(text: str | None) -> bool:
    return text is not None and text.lower() in _NO


def _context(
    *,
    verify: bool,
    exact: bool,
    authorities: str | None,
    certificate: str | None,
    key: str | None,
    directory: str | None = None,
    ciphers: str | None = None,
) -> ssl.SSLContext:
    files = [each for each in (authorities, directory, certificate, key) if each]
    try:
        context = ssl.create_default_context(cafile=authorities, capath=directory)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
        if ciphers is not None:
            context.set_ciphers(ciphers)
    except OSError as error:
        raise Invalid(
            f"[database] connection: its files for TLS ({', '.join(files)}) cannot be used: {error}."
        ) from error
    context.check_hostname = verify and exact
    if not verify:
        context.verify_mode = ssl.CERT_NONE
    return context
