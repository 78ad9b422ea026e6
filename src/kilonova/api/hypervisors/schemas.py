"""Queries of hypervisors."""

from __future__ import annotations

from kilonova.api.fields import Field, QuerySchema
from kilonova.api.types import BOOLEAN, FQDN, NOT_NEGATIVE, TEXT, multi, single

LIST = QuerySchema(
    Field("limit", multi(NOT_NEGATIVE), since="2.33", until="2.52"),
    Field("marker", multi(TEXT), since="2.33", until="2.52"),
    Field("limit", single(NOT_NEGATIVE), since="2.53"),
    Field("marker", single(TEXT), since="2.53"),
    Field("hypervisor_hostname_pattern", single(FQDN), since="2.53"),
    Field("with_servers", single(BOOLEAN), since="2.53"),
    open_until="2.52",
)
SHOW = QuerySchema(Field("with_servers", single(BOOLEAN), since="2.53"), open_until="2.52")
