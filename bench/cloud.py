"""The process under test: all roles but Identity and Image. `python -m bench.cloud DIR PORT`."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import structlog
import uvloop

from bench import scene
from bench.web import serve
from kilonova.api.app import create_app
from kilonova.testing.cloud import make_cloud
from kilonova.testing.identity import StaticTokens


async def run(directory: Path, port: int, hosts: int, synchronous: str) -> None:
    async with make_cloud(
        directory, hosts=hosts, settings=scene.SETTINGS, options=scene.HOST, sweep=1.0, synchronous=synchronous
    ) as cloud:
        scene.add_image(cloud.images)
        await scene.add_flavors(cloud.rt.db)
        await serve(create_app(cloud.rt, StaticTokens()), port)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--hosts", type=int, default=1)
    parser.add_argument("--synchronous", default="FULL")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    uvloop.run(run(given.directory, given.port, given.hosts, given.synchronous))


if __name__ == "__main__":
    main()
