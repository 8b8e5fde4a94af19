"""Interface texts of Home Assistant as parallel documents in 13 languages.

The wheel has `components/<component>/translations/<language>.json`, nested keys over short strings. A document is one
component in one language, one string per line. Strings that repeat the English fallback are left out, and so are
strings that an earlier component has in that language, so that held-out components share no line with the others.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokalign_lab.progress import Progress, silent

# Language code -> file name in the wheel. Arabic and Hindi have less than 10 kB of text.
LANGUAGES = {
    "en": "en", "de": "de", "es": "es", "fr": "fr", "ru": "ru", "ja": "ja", "ko": "ko", "zh": "zh-Hans",
    "tr": "tr", "vi": "vi", "pt": "pt", "it": "it", "uk": "uk",
}  # fmt: skip
_MEMBER = re.compile(r"homeassistant/components/([^/]+)/translations/([^/]+)\.json")
_LEAST_BYTES = 20  # shorter strings are labels, not sentences
_HELD_OUT_ONE_IN = 20


def documents(wheel: Path, progress: Progress = silent) -> list[dict[str, str]]:
    """Read the documents, in order of language and component.

    Returns dicts of text, name, group ("homeassistant/<component>"), slice (language code), split.
    """
    found: list[dict[str, str]] = []
    with zipfile.ZipFile(wheel) as archive:
        members: dict[str, dict[str, str]] = {}
        for member in archive.namelist():
            if match := _MEMBER.fullmatch(member):
                members.setdefault(match[2], {})[match[1]] = member
        for position, (language, file_name) in enumerate(LANGUAGES.items()):
            progress(position / len(LANGUAGES), f"interface texts: {language}")
            seen: set[str] = set()
            for component, member in sorted(members[file_name].items()):
                strings = dict(_strings(json.loads(archive.read(member))))
                if language != "en":
                    english = dict(_strings(json.loads(archive.read(members["en"][component]))))
                    strings = {key: value for key, value in strings.items() if english.get(key) != value}
                lines = list(dict.fromkeys(value for value in strings.values() if value not in seen))
                seen.update(lines)
                if lines:
                    found.append(_document(component, language, lines))
    return found


def is_held_out(component: str) -> bool:
    """Whether a component is held out: a fixed twentieth of them, by hash."""
    return int(hashlib.sha256(f"held out: {component}".encode()).hexdigest(), 16) % _HELD_OUT_ONE_IN == 0


def _document(component: str, language: str, lines: Sequence[str]) -> dict[str, str]:
    return {
        "text": "\n".join(lines),
        "name": f"homeassistant/{component}/{language}",
        "group": f"homeassistant/{component}",
        "slice": language,
        "split": "held_out" if is_held_out(component) else "train",
    }


def _strings(tree: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield (key path, string) for the strings that are long enough to be text."""
    if isinstance(tree, dict):
        for name, branch in tree.items():
            yield from _strings(branch, f"{key}.{name}")
    elif isinstance(tree, str):
        text = " ".join(tree.split())
        if len(text.encode()) >= _LEAST_BYTES:
            yield key, text
