"""`kilonova config check`: what of a nova.conf is not honoured, before a role says so."""

from __future__ import annotations

import typer

from kilonova.cli.options import ConfigFiles

app = typer.Typer(no_args_is_help=True, help="Configuration files.")


@app.command()
def check(config_file: ConfigFiles = None) -> None:
    """Report options that are unknown, not honoured, without effect or called by an old name.

    Exit code 1 when a role would not start.
    """
    from kilonova import config
    from kilonova.errors import Invalid
    from kilonova.service.mistakes import mistakes
    from kilonova.service.process import DEFAULT_FILES

    files = config_file or list(DEFAULT_FILES)
    stops = False
    for path in files:
        if not path.is_file():
            raise Invalid(f"Configuration file {path} does not exist.")
        for finding in config.review(path):
            stops |= finding.stops
            kind = "error" if finding.stops else "old" if finding.old else "ignored"
            print(f"{kind}: {path}: {finding.text}")
    if not stops:
        # What is known by name may still have a value that is none.
        wrong = mistakes(config.load(files))
        for message in wrong:
            print(f"error: {message}")
        stops = bool(wrong)
    if not stops:
        print("ok")
    raise typer.Exit(1 if stops else 0)
