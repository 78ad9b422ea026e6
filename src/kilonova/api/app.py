"""The ASGI application: one request in, one answer out.

In the order clients rely on: size, token, path, version, content type, body, project, parameters, operation.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import msgspec

from kilonova import tracing
from kilonova.api import documents, errors
from kilonova.api.context import TokenValidator, authenticate
from kilonova.api.errors import HttpError
from kilonova.api.policy import Policy
from kilonova.api.requests import Projects, Query, Request, parse_query, with_prefix
from kilonova.api.responses import Response
from kilonova.api.routes import ROUTES
from kilonova.api.routing import Action, Endpoint, Operation, Route, Router, at_version
from kilonova.api.settings import ApiSettings
from kilonova.api.versions import LEGACY, NotAcceptable, Version, negotiate
from kilonova.db.engine import is_full, is_unreachable
from kilonova.errors import Invalid, KilonovaError, TooLarge, Unauthorized, Unavailable
from kilonova.health import Health
from kilonova.metrics.families import NO_ROUTE
from kilonova.metrics.families import request as count_request
from kilonova.runtime import Runtime

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

log = logging.getLogger(__name__)

FULL = "The database cannot write: its disk may be full. Nothing was changed; try again when there is room."
AWAY = "The database does not answer; what was asked for may have happened all the same."
_JSON_TYPES = (b"application/json", b"application/vnd.openstack.compute+json", b"text/plain", b"")
_VARY: Headers = [(b"vary", b"OpenStack-API-Version"), (b"vary", b"X-OpenStack-Nova-API-Version")]
_encoder = msgspec.json.Encoder(decimal_format="number")
_DOCUMENTS = frozenset(("/", "/v2", "/v2/", "/v2.1", "/v2.1/", "/healthcheck"))
"""Paths that are routes by themselves; all others without a token are anybody's guess."""
_version_headers: dict[Version, Headers] = {}


def create_app(
    runtime: Runtime,
    validator: TokenValidator,
    *,
    policy: Policy | None = None,
    settings: ApiSettings | None = None,
    projects: Projects | None = None,
    routes: Iterable[Route | Action] = ROUTES,
    health: Health | None = None,
) -> Api:
    """`health`: of the process; without it that of the database."""
    settings = settings or ApiSettings()
    policy = policy or Policy(settings.policy_file)
    return Api(runtime, validator, policy, settings, Router(routes), projects, health)


def _health_of(runtime: Runtime) -> Health:
    made = Health()
    made.add("DATABASE", runtime.db.answers)
    return made


class Answer:
    """Status, headers and body, ready to be sent."""

    __slots__ = ("body", "headers", "route", "status")

    def __init__(self, status: int, body: bytes, headers: Headers) -> None:
        self.status = status
        self.body = body
        self.headers = headers
        self.route = NO_ROUTE


class Api:
    def __init__(
        self,
        runtime: Runtime,
        validator: TokenValidator,
        policy: Policy,
        settings: ApiSettings,
        router: Router,
        projects: Projects | None = None,
        health: Health | None = None,
    ) -> None:
        self.runtime = runtime
        self.health = health or _health_of(runtime)
        self.validator = validator
        self.policy = policy
        self.settings = settings
        self.router = router
        self.projects = projects
        self._ssl_header = (settings.secure_proxy_ssl_header or "").lower().replace("_", "-").removeprefix("http-")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            started = time.perf_counter()
            answer = await (self._traced(scope, receive) if tracing.on() else self._answer(scope, receive))
            await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
            await send({"type": "http.response.body", "body": answer.body})
            count_request("compute", scope["method"], answer.route, answer.status, time.perf_counter() - started)
            if log.isEnabledFor(logging.INFO):
                log.info(
                    '"%s %s" status: %d len: %d time: %.6f',
                    scope["method"], scope["path"], answer.status, len(answer.body), time.perf_counter() - started,
                )  # fmt: skip
        elif scope["type"] == "lifespan":
            await _lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _traced(self, scope: Scope, receive: Receive) -> Answer:
        given = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
        parent = tracing.valid(given.decode("latin-1"))
        with tracing.root("request", parent, {"http.request.method": scope["method"]}) as span:
            answer = await self._answer(scope, receive)
            span.rename(f"{scope['method']} {answer.route}")
            span.set({"http.route": answer.route, "http.response.status_code": answer.status})
            if answer.status >= 500:
                span.fail(str(answer.status))
        return answer

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        path: str = scope["path"]
        headers = _headers(scope["headers"])
        base_url = self._base_url(scope, headers)
        if path.startswith("/v2.1/") and len(path) > 6:
            return await self._run(scope, receive, headers, path[5:], base_url, legacy=False)
        if path.startswith("/v2/") and len(path) > 4:
            return await self._run(scope, receive, headers, path[3:], base_url, legacy=True)
        answer = await self._without_token(scope, headers, path, base_url)
        if path in _DOCUMENTS:
            answer.route = path
        return answer

    # Documents for anybody

    async def _without_token(self, scope: Scope, headers: dict[bytes, bytes], path: str, base_url: str) -> Answer:
        if path in ("/v2.1", "/v2.1/"):
            request_id = self._request_id()
            try:
                version = negotiate(headers)
            except KilonovaError as error:
                return self._error(error, error.version if isinstance(error, NotAcceptable) else None, request_id)
            content = _encoder.encode(documents.one_version("v2.1", f"{base_url}/v2.1"))
            return self._finish(200, content, version, request_id)
        if path in ("/v2", "/v2/"):
            content = _encoder.encode(documents.one_version("v2.0", f"{base_url}/v2"))
            return self._finish(200, content, None, self._request_id())
        if path == "/healthcheck":
            return await self._healthcheck(scope, headers)
        if path in ("", "/"):
            return self._finish(200, _encoder.encode(documents.all_versions(base_url)), None, None)
        return self._finish(300, _encoder.encode(documents.choices(base_url, path)), None, None)

    async def _healthcheck(self, scope: Scope, headers: dict[bytes, bytes]) -> Answer:
        """Whether this process can serve."""
        if scope["method"] not in ("GET", "HEAD"):
            return self._error(HttpError(405, "Use GET or HEAD here."), None, self._request_id())
        status, kind, text = await self.health.answer(headers.get(b"accept", b"").decode("latin-1"))
        body = text if scope["method"] == "GET" else b""
        length = str(len(text)).encode()
        return Answer(status, body, [(b"content-type", kind.encode()), (b"content-length", length)])

    # Operations

    async def _run(
        self, scope: Scope, receive: Receive, headers: dict[bytes, bytes], path: str, base_url: str, *, legacy: bool
    ) -> Answer:
        request_id = self._request_id()
        version: Version | None = None
        operation: Operation | None = None
        try:
            raw = await _read_body(receive, headers, self.settings.max_request_body_size)
            method: str = scope["method"]
            context = await authenticate(headers, method, scope["path"], request_id, self.validator, self.policy)
            found = self.router.find(method, path)
            if found is None:
                raise HttpError(404, errors.NO_SUCH_PATH)
            endpoint, params, project_id = found
            version = LEGACY if legacy else negotiate(headers)
            _check_content_type(headers)
            request = Request(
                method=method, path=path, headers=headers, base_url=base_url, version=version, context=context,
                runtime=self.runtime, policy=self.policy, projects=self.projects,
                params=params, project_in_path=project_id is not None,
            )  # fmt: skip
            body = _decode(raw) if method in ("POST", "PUT") else None
            operation = _choose(endpoint, raw, body, version)
            if project_id is not None and project_id != context.project_id:
                raise Invalid(
                    f"Malformed request URL: URL's project_id '{project_id}' doesn't match "
                    f"Context's project_id '{context.project_id}'"
                )
            if operation is None:
                raise HttpError(404, errors.NO_SUCH_PATH)
            _check(operation, request, scope["query_string"], body)
            if operation.policy is not None:
                request.authorize(operation.policy)
            answer = self._success(await operation.handler(request), operation, version, request_id)
        except KilonovaError as error:
            if isinstance(error, NotAcceptable):
                version = error.version
            answer = self._error(error, None if legacy else version, request_id)
        except Exception as error:
            log.exception("%s %s failed, request %s", scope["method"], scope["path"], request_id)
            if is_full(error):
                answer = self._error(Unavailable(FULL), None if legacy else version, request_id)
            elif is_unreachable(error):
                answer = self._error(Unavailable(AWAY), None if legacy else version, request_id)
            else:
                message = errors.body(500, errors.unexpected(request_id))
                answer = self._finish(500, message, None if legacy else version, request_id)
        if operation is not None:
            answer.route = operation.template
        return answer

    def _success(self, result: Any, operation: Operation, version: Version, request_id: str) -> Answer:
        shown = None if version == LEGACY else version
        if not isinstance(result, Response):
            content = b"" if result is None else _encoder.encode(result)
            return self._finish(operation.status_at(version), content, shown, request_id)
        body = result.body
        content = b"" if body is None else body if isinstance(body, bytes) else _encoder.encode(body)
        answer = self._finish(result.status or operation.status_at(version), content, shown, request_id)
        for name, value in (result.headers or {}).items():
            answer.headers.append((name.lower().encode("latin-1"), value.encode("latin-1")))
        return answer

    def _error(self, error: KilonovaError, version: Version | None, request_id: str) -> Answer:
        if error.status in (500, 503) or error.details:
            log.warning("request %s: %s %s", request_id, error.message, error.details or "")
        if isinstance(error, Unauthorized):
            # The form of Identity's own middleware, which is what clients know.
            content = _encoder.encode({"error": {"code": 401, "title": "Unauthorized", "message": error.message}})
            answer = self._finish(401, content, None, request_id)
            uri = self.settings.www_authenticate_uri or ""
            answer.headers.append((b"www-authenticate", f'Keystone uri="{uri}"'.encode("latin-1")))
            return answer
        return self._finish(error.status, errors.body(error.status, error.message), version, request_id)

    def _finish(self, status: int, content: bytes, version: Version | None, request_id: str | None) -> Answer:
        headers: Headers = [(b"content-type", b"application/json")]
        if status != 204:
            headers.append((b"content-length", str(len(content)).encode()))
        if version is not None:
            known = _version_headers.get(version)
            if known is None:
                text = str(version).encode()
                known = [
                    (b"openstack-api-version", b"compute " + text),
                    (b"x-openstack-nova-api-version", text),
                    *_VARY,
                ]
                if version.major == 2 and version.minor < 1000:
                    _version_headers[version] = known
            headers += known
        if request_id is not None:
            encoded = request_id.encode()
            headers.append((b"x-openstack-request-id", encoded))
            headers.append((b"x-compute-request-id", encoded))
        return Answer(status, content, headers)

    def _request_id(self) -> str:
        return f"req-{self.runtime.world.uuid()}"

    def _base_url(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """Scheme and host as the client sees them."""
        scheme = scope.get("scheme", "http")
        host = headers.get(b"host")
        if host is None:
            server = scope.get("server") or ("localhost", None)
            host = (f"{server[0]}:{server[1]}" if server[1] else str(server[0])).encode()
        prefix = scope.get("root_path", "")
        if self._ssl_header:
            scheme = headers.get(self._ssl_header.encode(), scheme.encode()).decode("latin-1")
        if self.settings.enable_proxy_headers_parsing:
            forwarded = headers.get(b"forwarded")
            if forwarded is not None:
                parts = _forwarded(forwarded.decode("latin-1"))
                scheme, host = parts.get("proto", scheme), parts.get("host", "").encode("latin-1") or host
            else:
                scheme = headers.get(b"x-forwarded-proto", scheme.encode()).decode("latin-1")
                host = headers.get(b"x-forwarded-host", host)
                port = headers.get(b"x-forwarded-port")
                if port and b":" not in host:
                    host = host + b":" + port
            prefix = headers.get(b"x-forwarded-prefix", prefix.encode()).decode("latin-1")
        url = f"{scheme}://{host.decode('latin-1')}{prefix.rstrip('/')}"
        return with_prefix(url, self.runtime.settings.compute_link_prefix)


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Headers by name; one that comes several times is joined by commas."""
    pairs = list(raw)
    headers = dict(pairs)
    if len(headers) < len(pairs):
        headers = {}
        for name, value in pairs:
            headers[name] = headers[name] + b"," + value if name in headers else value
    return headers


def _forwarded(value: str) -> dict[str, str]:
    """The first hop of RFC 7239's `Forwarded`."""
    parts = {}
    for part in value.split(",")[0].split(";"):
        name, _, text = part.strip().partition("=")
        parts[name.lower()] = text.strip('"')
    return parts


async def _read_body(receive: Receive, headers: dict[bytes, bytes], most: int) -> bytes:
    length = headers.get(b"content-length")
    if length is None and b"transfer-encoding" not in headers:
        return b""
    if length is not None and length.isdigit() and int(length) > most:
        raise TooLarge(f"The request body has {int(length)} bytes; at most {most} are accepted.")
    chunks: bytes = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Invalid("The connection was closed before the request body was complete.")
        chunks += message.get("body", b"")
        if len(chunks) > most:
            raise TooLarge(f"The request body has more than {most} bytes, which is the most accepted.")
        if not message.get("more_body", False):
            return chunks


def _check_content_type(headers: dict[bytes, bytes]) -> None:
    value = headers.get(b"content-type")
    if value is not None and value.split(b";", 1)[0].strip().lower() not in _JSON_TYPES:
        raise HttpError(415, "Unsupported Content-Type")


def _decode(raw: bytes) -> Any:
    if not raw:
        return None
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        raise Invalid(f"Malformed request body: {error}.") from None
    except (UnicodeDecodeError, RecursionError, ValueError):
        raise Invalid("Malformed request body: it is not JSON in UTF-8.") from None


def _choose(endpoint: Endpoint, raw: bytes, body: Any, version: Version) -> Operation | None:
    """The operation at this version, or None. An action goes by the body's one key."""
    if not endpoint.actions:
        return at_version(endpoint.operations, version)
    if not raw or (isinstance(body, dict | list | str) and len(body) != 1):
        raise Invalid("Malformed request body: exactly one action is accepted.")
    if not isinstance(body, dict):
        return None
    (key,) = body
    operations = endpoint.actions.get(key)
    if operations is None:
        raise Invalid(f"There is no such action: {key}")
    return at_version(operations, version)


def _check(operation: Operation, request: Request, query_string: bytes, body: Any) -> None:
    if query_string and operation.query is not None:
        parsed = parse_query(query_string)
        request.query = Query(operation.query.at(request.version).check_query(parsed))
    elif query_string:
        request.query = parse_query(query_string)
    if operation.body is not None:
        operation.body.at(request.version).check(body)
    request.body = body


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
