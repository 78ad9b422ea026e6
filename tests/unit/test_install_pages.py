"""docs/install: both languages say the same commands and files, which are those that the guide's run performs."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kilonova.cli.app import app
from tests.support.guide import COMPUTE, CONTROLLER, DOCTOR, NEUTRON_OF_COMPUTE, PROXY_OF_METADATA, SECRET

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs/install"
LANGUAGES = ("en", "ja")
KINDS = {"sh", "sql", "ini"}


def blocks(language: str) -> list[tuple[str, str]]:
    """Kind and content of each block of a page."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (PAGES / f"{language}.md").read_text(), flags=re.MULTILINE | re.DOTALL)


def of_kind(kind: str) -> list[str]:
    return [content for found, content in blocks("en") if found == kind]


def test_both_languages_have_the_same_blocks() -> None:
    assert {kind for kind, _ in blocks("en")} == KINDS
    assert blocks("ja") == blocks("en")


def test_a_heading_stands_for_a_heading() -> None:
    levels = []
    for language in LANGUAGES:
        prose = re.sub(r"^```.*?^```$", "", (PAGES / f"{language}.md").read_text(), flags=re.MULTILINE | re.DOTALL)
        levels.append(re.findall(r"^#+", prose, flags=re.MULTILINE))
    assert levels[0] == levels[1]


def test_the_japanese_page_is_japanese() -> None:
    page = (PAGES / "ja.md").read_text()
    prose = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    for paragraph in prose.split("\n\n"):
        if paragraph.strip() and not re.fullmatch(r"#+ \w+", paragraph.strip()) and "en.md" not in paragraph:
            assert re.search(r"[\u3040-\u30ff]", paragraph) or paragraph.startswith("#"), paragraph


def test_the_files_are_those_of_the_guides_run() -> None:
    controller, networking, compute, emulated = of_kind("ini")
    assert controller == CONTROLLER
    assert f"{compute}\n{emulated}" == COMPUTE
    assert f"\n{networking}" == NEUTRON_OF_COMPUTE + PROXY_OF_METADATA.replace(SECRET, "METADATA_SECRET")


@pytest.mark.parametrize("used", [(0,), (0, 1), (2,), (2, 3)], ids=["controller", "with-neutron", "compute", "qemu"])
def test_the_files_are_accepted_by_config_check(tmp_path: Path, used: tuple[int, ...]) -> None:
    file = tmp_path / "nova.conf"
    file.write_text("\n".join(of_kind("ini")[number] for number in used))
    done = CliRunner().invoke(app, ["config", "check", "--config-file", str(file)])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == "ok"
    assert "error:" not in done.output


def test_the_steps_of_the_run_are_printed_in_their_order() -> None:
    """Packages are installed otherwise, and files are edited with whatever editor; all the rest is word for word."""
    chapter = pytest.importorskip("tests.guide.chapter")
    typed = [line for kind, content in blocks("en") if kind in ("sh", "sql") for line in content.splitlines()]
    left_out = (chapter.PACKAGES, chapter.COMPUTE_PACKAGES, chapter.EDIT, chapter.COMPUTE_EDIT)
    wanted = []
    for step in chapter.STEPS:
        if step not in left_out:
            inside = {chapter.DATABASE: chapter.SQL, chapter.LOOK: chapter.LOOK_SQL}.get(step, ())
            wanted += [step.command, *inside]
    rest = iter(typed)
    assert [line for line in wanted if line not in rest] == []


def test_a_deployment_is_looked_at_as_the_run_does() -> None:
    assert f"{DOCTOR}\n" in of_kind("sh")
    for language in LANGUAGES:
        page = (PAGES / f"{language}.md").read_text()
        # What the run finds in the guide's deployment.
        assert all(f"`{word}`" in page for word in ("ok", "warning", "wrong", "broker: identities"))


def test_what_is_installed_is_there() -> None:
    """The programs that are linked, the units that are copied, the account of each unit, the extra of the host."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    shell = "".join(of_kind("sh"))
    assert "pip install -c constraints/kilonova.txt '.[libvirt]'" in shell
    assert "libvirt" in project["optional-dependencies"]
    assert (ROOT / "constraints/kilonova.txt").is_file()
    programs = {name for name in project["scripts"] if name.startswith("nova-") or name == "kilonova"}
    units = {path.name: path.read_text() for path in (ROOT / "deploy/systemd").glob("*.service")}
    for unit in re.findall(r"openstack-nova-\w+\.service", shell):
        (program,) = re.findall(r"^ExecStart=/usr/bin/(\S+)$", units[unit], flags=re.MULTILINE)
        assert program in programs
        assert re.search(r"^User=(nova|root)$", units[unit], flags=re.MULTILINE)
