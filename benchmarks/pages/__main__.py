"""Build every page of docs/results and its plot from the raw data in benchmarks/results: `make results`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import index
from page import PAGES

if __name__ == "__main__":
    print(f"{index.build(PAGES)} pages in {PAGES}")
