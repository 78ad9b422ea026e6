"""This package as others install it: a wheel, built from a copy of the sources."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def install_alone(scratch: Path) -> Path:
    """A directory that has the wheel's content and nothing else, to be put on somebody's path."""
    sources, wheels, target = scratch / "sources", scratch / "wheels", scratch / "installed"
    sources.mkdir(parents=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    shutil.copytree(ROOT / "src", sources / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    build = ["wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(wheels), str(sources)]
    _run([*pip, *build])
    (wheel,) = wheels.glob("kilonova-*.whl")
    _run([*pip, "install", "-q", "--no-deps", "--no-index", "--target", str(target), str(wheel)])
    return target


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
