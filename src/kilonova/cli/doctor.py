"""`kilonova doctor`: looks at a deployment from end to end and says what to fix. It changes nothing."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from kilonova import log as logs
from kilonova.cli.cloud import DEFAULT_STATE_DIR, StateDir
from kilonova.doctor.findings import Finding, exit_code, worst


def doctor(
    config_file: Annotated[
        list[Path] | None,
        typer.Option(help="A deployment's nova.conf; may be repeated. Without it: the cloud of --state-dir."),
    ] = None,
    state_dir: StateDir = DEFAULT_STATE_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="One document, for programs.")] = False,
) -> None:
    """Look at everything a cloud stands on. Exit code 0: all is well, 1: warnings, 2: something is wrong."""
    from kilonova.allinone.state import exists
    from kilonova.doctor.examine import Examination
    from kilonova.doctor.site import of_files, of_state_dir
    from kilonova.service.process import DEFAULT_FILES

    # What roles and libraries log is told in our own words.
    logs.configure(level="CRITICAL")
    logging.disable(logging.CRITICAL)

    def tell(finding: Finding) -> None:
        if not as_json:
            show(finding)

    # Where no cloud of one machine is, it is the deployment that this machine is of.
    if config_file or (not exists(state_dir) and DEFAULT_FILES[0].is_file()):
        site, findings = of_files([path.resolve() for path in config_file or DEFAULT_FILES])
    elif exists(state_dir):
        site, findings = of_state_dir(state_dir)
    else:
        typer.echo(f"error: no cloud in {state_dir.resolve()}, and no {DEFAULT_FILES[0]}", err=True)
        typer.echo("what to do: say --state-dir or --config-file", err=True)
        raise typer.Exit(2)
    for finding in findings:
        tell(finding)
    if site is not None:
        examination = Examination(site, tell)
        asyncio.run(examination.run())
        findings = findings + examination.findings
    if as_json:
        document = {"result": worst(findings), "checks": [asdict(finding) for finding in findings]}
        typer.echo(json.dumps(document, indent=2))
    else:
        counts = [f"{sum(each.result == kind for each in findings)} {kind}" for kind in ("ok", "warning", "wrong")]
        typer.echo(", ".join(counts))
    raise typer.Exit(exit_code(findings))


def show(finding: Finding) -> None:
    typer.echo(f"{finding.result:<8} {finding.check}: {finding.text}")
    if finding.fix is not None:
        typer.echo(f"{'':<8} what to do: {finding.fix}")
