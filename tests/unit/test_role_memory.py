"""Roles load nothing heavy that they do not need: memory is paid for once per process."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMMON = """import sys
from kilonova import lean
lean.trim()
import kilonova.cli.roles, kilonova.service.process, kilonova.service.roles
"""
DATABASE = """
from kilonova.db.engine import Database
Database("mysql://nova:secret@127.0.0.1/nova")
"""
NOBODY = [
    "typer", "pydantic", "pydantic_core", "rich", "pygments", "alembic", "sqlalchemy.orm", "charset_normalizer",
    "sqlalchemy.dialects.postgresql.base", "cryptography.hazmat.bindings._rust", "uvicorn.main", "click",
    "multiprocessing", "netaddr.core", "rfc3986.uri",
]  # fmt: skip


def run(script: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("kilonova.api.app", ["numpy", "websockets"]),
        ("kilonova.conductor.role", ["numpy", "jsonschema_rs"]),
        ("kilonova.conductor.scheduling", ["jsonschema_rs", "httpx"]),
        ("kilonova.service.agents", ["numpy", "jsonschema_rs", "sqlalchemy", "cryptography"]),
    ],
)
def test_a_role_is_as_small_as_what_it_needs(module: str, unwanted: list[str]) -> None:
    database = "" if module == "kilonova.service.agents" else DATABASE
    names = [*NOBODY, *unwanted]
    assert run(f"{COMMON}import {module}\n{database}print(*(n for n in {names!r} if sys.modules.get(n)))") == []


def test_the_web_server_runs_without_its_command_line() -> None:
    modules = "import uvicorn.config, uvicorn.lifespan.off, uvicorn.protocols.http.httptools_impl, httpx"
    names = ["uvicorn.main", "click", "multiprocessing"]
    assert run(f"{COMMON}{modules}\nprint(*(n for n in {names!r} if sys.modules.get(n)))") == []


def test_what_is_left_out_comes_when_it_is_asked_for() -> None:
    assert run(
        COMMON
        + """
from sqlalchemy.dialects.mysql import asyncmy
from sqlalchemy.ext.asyncio.engine import create_async_engine
print("sqlalchemy.orm" in sys.modules)
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine as same
print("sqlalchemy.orm" in sys.modules, same is create_async_engine)
import sqlalchemy
print(sqlalchemy.make_url("postgresql+asyncpg://nova@h/nova").get_dialect().name)
from kilonova.compute import keys
import datetime
print(keys.generate("ssh", "user", datetime.datetime.now()).public_key.split()[0])
from cryptography.hazmat.primitives import hashes, serialization
print(hashes.SHA256.name)
"""
    ) == ["False", "True", "True", "postgresql", "ssh-rsa", "sha256"]


def test_a_password_is_sent_encrypted_where_the_database_wants_that() -> None:
    assert run(
        COMMON
        + """
import asyncmy.auth
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
kind = serialization.PublicFormat.SubjectPublicKeyInfo
key = rsa.generate_private_key(65537, 2048).public_key().public_bytes(serialization.Encoding.PEM, kind)
print(len(asyncmy.auth.sha2_rsa_encrypt(b"secret", b"salt" * 5, key)))
"""
    ) == ["256"]


def test_a_policy_that_asks_a_server_reads_its_answer() -> None:
    """A second HTTP client comes with the first rule that needs it."""
    assert run(
        COMMON
        + """
import http.server, pathlib, sys, tempfile, threading
from kilonova.api.policy import Policy
from kilonova.context import RequestContext

class Answers(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = b"True" if "show" in self.path else b"False"
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *_): ...

Policy()
print("requests" in sys.modules)
server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}"
with tempfile.TemporaryDirectory() as directory:
    rules = pathlib.Path(directory) / "policy.yaml"
    rules.write_text("".join(f'"os_compute_api:servers:{n}": "{url}/{n}"\\n' for n in ("show", "delete")))
    policy = Policy(rules)
    caller = RequestContext(request_id="req-1", user_id="u", project_id="p", roles=frozenset({"member"}))
    print(*(policy.allows(f"os_compute_api:servers:{n}", caller) for n in ("show", "delete")))
server.shutdown()
"""
    ) == ["False", "True", "False"]


def test_a_database_of_any_kind_can_be_used() -> None:
    assert run(
        COMMON
        + """
import asyncio, tempfile
from kilonova.db.engine import Database
from kilonova.db.schema import create_all
from kilonova.db.tables import services
import sqlalchemy

async def main():
    with tempfile.TemporaryDirectory() as directory:
        db = Database(f"sqlite:///{directory}/x.sqlite")
        await create_all(db)
        rows = await db.read(lambda tx: tx.execute(sqlalchemy.select(sqlalchemy.func.count()).select_from(services)))
        print(rows.scalar_one())
        await db.close()

asyncio.run(main())
print(type(Database("postgresql://nova:x@127.0.0.1/nova").url).__name__)
"""
    ) == ["0", "URL"]
