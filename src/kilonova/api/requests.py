"""A request as handlers see it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from kilonova.api.types import whole
from kilonova.api.versions import LEGACY, Version
from kilonova.context import RequestContext
from kilonova.errors import Forbidden, Invalid
from kilonova.runtime import Runtime

if TYPE_CHECKING:
    from kilonova.api.policy import Policy

Link = dict[str, str]
MAX_PAGE = 1_000_000_000


class Projects(Protocol):
    """Identity's projects, as `clients.identity.IdentityTokens` knows them."""

    async def exists(self, project_id: str) -> bool | None:
        """None when Identity would not or could not say."""
        ...


class Query(dict[str, list[str]]):
    """Query parameters by name; each has one value or several."""

    __slots__ = ()

    def last(self, name: str, default: str | None = None) -> str | None:
        """The value, the last one where several were given."""
        values = self.get(name)
        return values[-1] if values else default

    def all(self, name: str) -> list[str]:
        return self.get(name, [])


def parse_query(raw: bytes) -> Query:
    """Raises Invalid for a query string that is not UTF-8."""
    query = Query()
    if raw:
        try:
            pairs = parse_qsl(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=1000)
        except UnicodeDecodeError:
            raise Invalid("Query string is not UTF-8 encoded") from None
        except ValueError:
            raise Invalid("Query string has more than 1000 parameters") from None
        for name, value in pairs:
            query.setdefault(name, []).append(value)
    return query


class Request:
    """One request: who asks, at which version, for what. Query and body are already valid."""

    __slots__ = (
        "_policy",
        "_projects",
        "base_url",
        "body",
        "context",
        "headers",
        "method",
        "params",
        "path",
        "project_in_path",
        "query",
        "runtime",
        "version",
    )

    def __init__(
        self,
        *,
        method: str,
        path: str,
        headers: dict[bytes, bytes],
        base_url: str,
        version: Version,
        context: RequestContext,
        runtime: Runtime,
        policy: Policy,
        projects: Projects | None,
        params: dict[str, str],
        project_in_path: bool,
    ) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.base_url = base_url
        """Scheme and host, with compute_link_prefix already applied; no version, no slash at the end."""
        self.version = version
        self.context = context
        self.runtime = runtime
        self.params = params
        self.project_in_path = project_in_path
        self.query: Query = Query()
        self.body: Any = None
        self._policy = policy
        self._projects = projects

    @property
    def legacy(self) -> bool:
        """Whether the request came by the path of the API before microversions."""
        return self.version == LEGACY

    # Policy

    def allowed(self, rule: str, target: Mapping[str, Any] | None = None) -> bool:
        """Whether policy lets the caller do `rule`; without a target, to what is the caller's own."""
        return self._policy.allows(rule, self.context, target)

    def authorize(self, rule: str, target: Mapping[str, Any] | None = None) -> None:
        """Raises Forbidden."""
        if not self._policy.allows(rule, self.context, target):
            raise Forbidden(f"Policy doesn't allow {rule} to be performed.")

    async def project_exists(self, project_id: str) -> bool | None:
        """Whether Identity knows the project; None when that cannot be found out."""
        return None if self._projects is None else await self._projects.exists(project_id)

    # Links

    @property
    def self_prefix(self) -> str:
        """What the links to resources begin with, as `http://host/v2.1` or `http://host/v2.1/PROJECT`."""
        root = f"{self.base_url}/{'v2' if self.version == LEGACY else 'v2.1'}"
        return f"{root}/{self.context.project_id}" if self.project_in_path else root

    @property
    def bookmark_prefix(self) -> str:
        return f"{self.base_url}/{self.context.project_id}" if self.project_in_path else self.base_url

    def links(self, collection: str, identifier: str | int) -> list[Link]:
        return [
            {"rel": "self", "href": f"{self.self_prefix}/{collection}/{identifier}"},
            {"rel": "bookmark", "href": f"{self.bookmark_prefix}/{collection}/{identifier}"},
        ]

    def linker(self, collection: str) -> Linker:
        """Makes the links of many resources of one collection."""
        return Linker(f"{self.self_prefix}/{collection}/", f"{self.bookmark_prefix}/{collection}/")

    def next_links(self, collection: str, items: int, marker: str | None) -> list[Link]:
        """The link to the next page: there when this one is as full as asked for, or as `max_limit` lets it be."""
        page = min(self.limit_asked() or self.runtime.settings.max_limit, self.runtime.settings.max_limit)
        if marker is None or items < page or self.query.last("limit") == "0":
            return []
        query = {name: values[-1] for name, values in sorted(self.query.items())}
        query["marker"] = marker
        return [{"rel": "next", "href": f"{self.self_prefix}/{collection}?{urlencode(query)}"}]

    # Paging

    def limit_asked(self) -> int | None:
        text = self.query.last("limit")
        return min(whole(text), MAX_PAGE) if text else None

    def page_limit(self) -> int:
        """How many items at most to show: the `limit` asked for (0 is none at all), never more than `max_limit`."""
        most = self.runtime.settings.max_limit
        asked = self.limit_asked()
        return most if asked is None else min(asked, most)


class Linker:
    __slots__ = ("_bookmark", "_self")

    def __init__(self, self_prefix: str, bookmark_prefix: str) -> None:
        self._self = self_prefix
        self._bookmark = bookmark_prefix

    def __call__(self, identifier: str | int) -> list[Link]:
        return [
            {"rel": "self", "href": f"{self._self}{identifier}"},
            {"rel": "bookmark", "href": f"{self._bookmark}{identifier}"},
        ]


def with_prefix(url: str, prefix: str | None) -> str:
    """`url` with scheme and host of `compute_link_prefix` and its path put in front."""
    if not prefix:
        return url
    own, wanted = urlsplit(url), urlsplit(prefix)
    return urlunsplit((wanted.scheme, wanted.netloc, wanted.path + own.path, "", "")).rstrip("/")
