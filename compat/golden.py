"""The reference's answers as recorded: one JSON file per story, equal neighbours written once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compat.play import Answer, Key

DIRECTORY = Path(__file__).parent.parent / "tests" / "compat" / "golden"


def path_of(story: str) -> Path:
    return DIRECTORY / f"{story}.json"


def write(story: str, answers: Mapping[Key, Answer]) -> None:
    steps: dict[str, list[dict[str, Any]]] = {}
    for key, answer in answers.items():
        content = asdict(answer)
        request = f"{key.version} {key.token}" + (f" {key.number}" if key.number else "")
        known = steps.setdefault(key.step, [])
        same = next((entry for entry in known if entry["answer"] == content), None)
        if same is None:
            known.append({"at": [request], "answer": content})
        else:
            same["at"].append(request)
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    lines = ["{"]
    for step, entries in steps.items():
        lines.append(f" {json.dumps(step)}: [")
        lines += [f"  {json.dumps(entry)}{',' if entry is not entries[-1] else ''}" for entry in entries]
        lines.append(" ]" + ("," if step != list(steps)[-1] else ""))
    lines.append("}\n")
    path_of(story).write_text("\n".join(lines))


def read(story: str) -> dict[Key, Answer]:
    answers = {}
    for step, entries in json.loads(path_of(story).read_text()).items():
        for entry in entries:
            answer = Answer(**entry["answer"])
            for request in entry["at"]:
                version, token, *number = request.split(" ")
                key = Key(story=story, step=step, version=version, token=token, number=int(number[0]) if number else 0)
                answers[key] = answer
    return answers
