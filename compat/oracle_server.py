"""Serve the reference implementation's API on a loopback port; runs in the oracle's own environment.

It stands on the functional-test fixtures that the reference package ships: the real API, conductor,
scheduler and two hosts with a simulated hypervisor, SQLite in memory, a real Placement, simulated Image,
Networking and Block Storage. There is no Identity: the token's own name picks user and roles.

    python oracle_server.py PORT

Prints one line of JSON (base URL, project, images, hosts) when it serves, and ends when its input ends.
"""

from __future__ import annotations

import json
import os
import socketserver
import sys
import threading
import unittest
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "true"
os.environ["OS_TEST_TIMEOUT"] = "0"

from nova import monkey_patch  # type: ignore[import-not-found]  # only the oracle's own environment has it

monkey_patch.patch()

from futurist._thread import ThreadWorker  # type: ignore[import-not-found]  # noqa: E402
from nova import policy  # noqa: E402, what comes before decides how this is loaded
from nova.tests.functional import integrated_helpers  # type: ignore[import-not-found]  # noqa: E402

ROLES = {
    "admin": "reader,member,manager,admin",
    "manager": "reader,member,manager",
    "member": "reader,member",
    "other": "reader,member",
    "reader": "reader",
}
OTHER_PROJECT = "0123456789abcdef0123456789abcdef"
NO_ROLE = "nobody"

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def as_identity(application: Application, project: str) -> Application:
    """What the token middleware would have put into the request."""

    def identified(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        token = environ.get("HTTP_X_AUTH_TOKEN", "")
        environ["HTTP_X_AUTH_USER"] = token
        environ["HTTP_X_AUTH_PROJECT_ID"] = OTHER_PROJECT if token == "other" else project
        environ["HTTP_X_ROLES"] = ROLES.get(token, NO_ROLE)
        environ.setdefault("REMOTE_ADDR", "127.0.0.1")
        return application(environ, start_response)

    return identified


class Oracle(integrated_helpers._IntegratedTestBase):  # type: ignore[misc]
    ADMIN_API = True
    CAST_AS_CALL = False

    def _setup_services(self) -> None:
        # Each of its many worker threads wakes once a second, which is most of what a small machine can do.
        ThreadWorker.MAX_IDLE_FOR = 60
        self.flags(default_thread_pool_size=8, cell_worker_thread_pool_size=4)
        super()._setup_services()

    def _setup_compute_service(self) -> Any:
        self.flags(allow_resize_to_same_host=True)
        self._start_compute("host-2")
        return self._start_compute("host-1")

    def test_serve(self) -> None:
        # The fixtures fall back to the rules of releases long gone; operators have today's.
        self.flags(enforce_new_defaults=True, group="oslo_policy")
        # A deployment does not check its own answers; its tests do, and refuse what would have been accepted.
        self.flags(response_validation="ignore", group="api")
        policy.reset()
        policy.init(suppress_deprecation_warnings=True)
        project = self.api_fixture.project_id
        port = int(os.environ["ORACLE_PORT"])
        server = make_server("127.0.0.1", port, as_identity(self.api_fixture.app(), project), _Server, _Quiet)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        about = {
            "base": f"http://127.0.0.1:{server.server_port}",
            "project": project,
            "images": [image["id"] for image in self.glance.detail(None)],
            "hosts": ["host-1", "host-2"],
        }
        sys.__stdout__.write(json.dumps(about) + "\n")  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]
        sys.__stdin__.read()  # type: ignore[union-attr]
        os._exit(0)


if __name__ == "__main__":
    os.environ["ORACLE_PORT"] = sys.argv[1]
    unittest.main(module="__main__", argv=["oracle", "Oracle.test_serve"])
