"""What an align run will cost, before it is started: time, memory and what has to be downloaded.

Every figure is a rate that was measured, times a size that is known beforehand. The rates come from a two-core machine
that also did other work, so the estimate is on the long side there and longer than need be on a better machine; it
shows "about": right within a factor of two. GloVe vectors that were trained on the same text before come from the
cache and cost nothing, which the estimate does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokalign_lab import catalog
from tokalign_lab.alignment.registry import Recipe, check_recipe
from tokalign_lab.catalog.choices import where_from

MACHINE = "AMD EPYC, 2 cores, 24 GiB, torch 2.13.0+cpu, November 2026"
START_S = 6.0
"""Process, imports and both tokenizers: 5.2 CPU seconds with sp32k, 5.8 with llama3."""
TOKENISE_S_PER_MB = 1.0
"""Both sides, one thread: 4.0 s for 3.8 MB."""
ANCHORED_S, ANCHORED_S_PER_MB = 0.6, 0.25
"""docs/results/growth.md: 0.8 s at 1 MB, 3.0 s at 10 MB."""
GLOVE_S_PER_MB = 9.0
"""Both sides, 15 iterations: 59 s for 6 MB (docs/results/quality.md); a free machine needs half (vectors_speed.md)."""
FASTTEXT_S_PER_MB = 7.5
"""docs/results/quality.md: FOCUS in 45 s for 6 MB."""
VECTORS_S_PER_MB = {
    "": 0.0, "anchored": ANCHORED_S_PER_MB, "glove": GLOVE_S_PER_MB, "fasttext": FASTTEXT_S_PER_MB
}  # fmt: skip
SEARCH_S_PER_TOKEN = 3e-5
"""Candidates and rows made of them, a token of both vocabularies: anchored less pieces, docs/results/quality.md."""
ROWS_S_PER_TOKEN = 3.2e-5
"""Rows of pieces and the table: 2 s at 81,000 tokens of both sides, 10 s at 311,000 (docs/results/quality.md)."""
SCORE_S_PER_DOCUMENT = 0.45
"""The sentence encoder reads held-out documents both ways: 54 in 28 CPU seconds, 192 in 85."""
MOST_SCORED, FEWEST_SCORED, SCORED_PER_MB = 200, 30, 42
"""The packaged text has 54 such documents at 0.5 MB, 120 at 2 MB, 192 at 4 MB; 200 are the most that are read."""
REARRANGE_S, REARRANGE_S_PER_GB = 4.0, 3.0
"""docs/results/rearrange_memory.md: a model of 4 GB in 12 s."""
MEMORY_BYTES, MEMORY_PER_TOKEN, MEMORY_PER_MB = 700_000_000, 2_000, 20_000_000
"""0.9 GB with 4 MB of text and sp32k; docs/results/growth.md: 1.0 GB at 32,000 and 1.8 GB at 262,000 target tokens with
10 MB, 2.5 GB with 100 MB."""
ENCODER_BYTES = 450_000_000
"""What scoring adds: 1.1 GB in place of 0.7 GB."""
DEFAULT_TEXT_BYTES = 15_600_000
"""Of the packaged text where it is not built yet."""
UNMEASURED = {
    "tokalign++": "Mapping one space onto the other is not in the figure; it was not measured.",
    "tokalign++-hidden": "Reading the text by the model is not in the figure; it was not measured.",
    "omp": "Matching pursuit is not in the figure; two minutes for 49,152 target tokens (docs/results/quality.md).",
}


@dataclass(frozen=True)
class Estimate:
    """About what a run costs.

    Attributes
    ----------
    steps : dict of str to float
        Seconds by step, in the order of the work.
    memory_bytes : int
        The most that the run's process holds.
    download_bytes : int
        To fetch before it can begin.
    note : str
        What to know about the figures.
    """

    steps: dict[str, float]
    memory_bytes: int
    download_bytes: int
    note: str = field(default="")

    @property
    def seconds(self) -> float:
        """All steps together."""
        return sum(self.steps.values())


def estimate(
    recipe: str,
    sizes: tuple[int, int],
    text_bytes: int,
    model_bytes: int = 0,
    downloads: Sequence[str] = (),
) -> Estimate:
    """Estimate an align run.

    Parameters
    ----------
    recipe
        A name of `RECIPES`.
    sizes
        Tokens of source and target.
    text_bytes
        UTF-8 bytes of the text, the held-out part included.
    model_bytes
        Size of the source model's files, where it is to be rearranged as well.
    downloads
        Names of catalogue assets to fetch.

    Raises
    ------
    InputError
        For an unknown recipe or asset.
    """
    method = check_recipe(recipe)
    megabytes, tokens = text_bytes / 1e6, sum(sizes)
    vectors = _vectors(method, megabytes)
    steps = {"starting": START_S, "tokenising": TOKENISE_S_PER_MB * megabytes, "vectors": vectors}
    if method.space is not None:
        steps["comparing tokens"] = SEARCH_S_PER_TOKEN * tokens
    steps["making rows"] = ROWS_S_PER_TOKEN * tokens
    steps["scoring"] = SCORE_S_PER_DOCUMENT * min(MOST_SCORED, FEWEST_SCORED + SCORED_PER_MB * megabytes)
    if method.space is not None:  # hides shared tokens and looks again; GloVe is not trained again
        again = vectors if method.trains == "anchored" else 0.0
        steps["looking for held-out shared tokens"] = again + SEARCH_S_PER_TOKEN * tokens
    if model_bytes:
        steps["rearranging"] = REARRANGE_S + REARRANGE_S_PER_GB * model_bytes / 1e9
    memory = MEMORY_BYTES + ENCODER_BYTES + MEMORY_PER_TOKEN * tokens + MEMORY_PER_MB * megabytes
    note = UNMEASURED.get(recipe, "")
    return Estimate(
        {name: seconds for name, seconds in steps.items() if seconds},
        round(memory),
        sum({catalog.find(name).origin: catalog.find(name).size_bytes for name in downloads}.values()),
        f"Rates are from {MACHINE}. {note}".rstrip(),
    )


def size_of_texts(sources: Sequence[str], max_bytes: int | None = None) -> int:
    """UTF-8 bytes of texts as `read_documents` takes them, by the size of their files; nothing is read or fetched.

    What the hub has counts as `max_bytes`, or 50 MB, which is where reading it stops.
    """
    total = 0
    for source in sources:
        path = Path(source).expanduser()
        if source.startswith("hub:"):
            total += max_bytes or 50_000_000
        elif path.is_dir():
            total += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        elif path.is_file():
            total += path.stat().st_size
        elif catalog.is_known(source):
            here = catalog.cached_path(source)
            total += DEFAULT_TEXT_BYTES if here is None else here.stat().st_size
    return total if max_bytes is None else min(total, max_bytes)


def size_of_model(name: str) -> int:
    """Bytes of a model's files here; 0 where it is not on this machine."""
    path = catalog.cached_path(name) if catalog.is_known(name) else Path(name).expanduser()
    if path is None or not path.exists():
        return 0
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.suffix in (".safetensors", ".bin")]
    return sum(file.stat().st_size for file in files)


def to_download(names: Sequence[str]) -> list[str]:
    """Return those names of the catalogue that are not on this machine; the encoder that scores with them."""
    wanted = [name for name in (*names, "minilm") if catalog.is_known(name)]
    return [name for name in dict.fromkeys(wanted) if not where_from(name).here]


def _vectors(method: Recipe, megabytes: float) -> float:
    fixed = ANCHORED_S if method.trains == "anchored" else 0.0
    return fixed + VECTORS_S_PER_MB[method.trains] * megabytes
