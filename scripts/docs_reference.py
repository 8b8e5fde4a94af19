"""Generate the reference of the command line and of the settings from the code, while the site is built.

MkDocs calls `on_page_markdown`, which replaces `<!-- reference: cli -->` and `<!-- reference: settings -->` in a page
by the generated text. So the reference cannot differ from the program.
"""

from __future__ import annotations

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the reference comments of a page; MkDocs calls this for every page."""
    for name, make in {"cli": commands, "settings": settings}.items():
        mark = f"<!-- reference: {name} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return markdown


def commands() -> str:
    """Return every command with its arguments and options, as Markdown."""
    from typer.main import get_command

    from tokalign_lab.cli import app

    return "\n".join(_command(name, command) for name, command in _leaves("", get_command(app)))


def _leaves(name: str, command: Any) -> list[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        return [(name, command)]
    return [leaf for word, one in below.items() if not one.hidden for leaf in _leaves(f"{name} {word}".strip(), one)]


def _command(name: str, command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument" and one.help]
    options = [one for one in command.params if one.param_type_name == "option" and not getattr(one, "hidden", False)]
    words = {one.metavar or one.name.upper(): one for one in arguments}
    usage = " ".join(["tokalign-lab", name, *(word if one.required else f"[{word}]" for word, one in words.items())])
    rows = [(f"`{word}`", *_meaning(one.help)) for word, one in words.items()]
    rows += [(f"`{', '.join([*one.opts, *one.secondary_opts])}`", *_meaning(one.help)) for one in options]
    section = f"## {name}\n\n{_cell(command.help)}\n\n```text\n{usage} [OPTIONS]\n```\n\n"
    return section + _table(("option", "default", "meaning"), rows)


def _meaning(text: str | None) -> tuple[str, str]:
    """Split a help text into its main part and the default at its end."""
    found = re.fullmatch(r"(.*?)\s*\[default: (.*)\]", " ".join((text or "").split()))
    return (f"`{found[2]}`", found[1]) if found else ("", text or "")


def settings() -> str:
    """Return every setting of every kind of run and command, as Markdown."""
    from tokalign_lab.adaptation.settings import AdaptRunSettings
    from tokalign_lab.settings import kinds

    chosen: dict[str, Any] = {
        "align": kinds.AlignSettings,
        "rearrange": kinds.RearrangeSettings,
        "adapt": AdaptRunSettings,
        "bpb": kinds.BitsSettings,
        "score": kinds.ScoreSettings,
        "advise": kinds.AdviseSettings,
    }
    found = []
    for name, kind in chosen.items():
        rows = [
            (f"`{one.name}`", "required" if one.required else _default(one.default), one.help) for one in kind.options()
        ]
        found.append(f"## {name}\n\n" + _table(("setting", "default", "meaning"), rows))
    return "\n".join(found)


def _table(head: tuple[str, ...], rows: list[tuple[str, str, str]]) -> str:
    lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(head) + " |", "|---|---|---|", *lines, ""])


def _default(value: Any) -> str:
    if value in (None, "", (), [], {}):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")
