"""Estimate time, memory and downloads of an align run before it starts.

Every figure is a measured rate times a known size. The rates come from a busy two-core machine, so a better machine is
faster; "about" means within a factor of two. The estimate assumes that no vectors are cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokalign_lab import catalog
from tokalign_lab.alignment.registry import check_recipe
from tokalign_lab.catalog.choices import where_from
from tokalign_lab.documents import HUB_BYTES
from tokalign_lab.files import from_home
from tokalign_lab.model.sizes import IN_MEMORY, bytes_of_files

MACHINE = "AMD EPYC, 2 cores, 24 GiB, torch 2.13.0+cpu, November 2026"
START_S = 6.0
"""Process, imports and both tokenizers: 5.2 CPU seconds with sp32k, 5.8 with llama3."""
TOKENISE_S_PER_MB = 1.0
"""Both sides, one thread: 4.0 s for 3.8 MB."""
VECTORS_S = {
    "": (0.0, 0.0),
    "anchored": (0.6, 0.25),  # docs/results/growth.md: 0.8 s at 1 MB, 3.0 s at 10 MB
    "glove": (0.0, 9.0),  # docs/results/quality.md: 59 s for 6 MB; an idle machine needs half (vectors_speed.md)
    "fasttext": (0.0, 7.5),  # docs/results/quality.md: FOCUS in 45 s for 6 MB
}
"""Seconds of training both sides' vectors, and seconds per MB of text."""
SEARCH_S_PER_TOKEN = 3e-5
"""Candidates and their rows, per token of both vocabularies: anchored minus pieces, docs/results/quality.md."""
ROWS_S_PER_TOKEN = 3.2e-5
"""Rows by pieces and the table: 2 s at 81,000 tokens of both sides, 10 s at 311,000 (docs/results/quality.md)."""
SCORE_S_PER_DOCUMENT = 0.45
"""The sentence encoder reads held-out documents both ways: 54 in 28 CPU seconds, 192 in 85."""
MOST_SCORED, FEWEST_SCORED, SCORED_PER_MB = 200, 30, 42
"""The packaged text has 54 such documents at 0.5 MB, 120 at 2 MB, 192 at 4 MB; at most 200 are scored."""
REARRANGE_S, REARRANGE_S_PER_GB = 4.0, 3.0
"""docs/results/rearrange_memory.md: a model of 4 GB in 12 s."""
CALIBRATE_S_PER_TOKEN, CALIBRATE_S_PER_GB = 2.5e-4, 150.0
"""`rearrange smollm2-135m LEXICON --calibrate default` to sp32k on two cores: 60 of 68 s, at 81,000 tokens of
both sides and 0.27 GB; a third of it goes to the output."""
MEMORY_BYTES, MEMORY_PER_TOKEN, MEMORY_PER_MB = 700_000_000, 2_000, 20_000_000
"""0.9 GB with 4 MB of text and sp32k; docs/results/growth.md: 1.0 GB at 32,000 and 1.8 GB at 262,000 target tokens with
10 MB, 2.5 GB with 100 MB."""
ENCODER_BYTES = 450_000_000
"""Added by scoring: 1.1 GB instead of 0.7 GB."""
DEFAULT_TEXT_BYTES = 15_600_000
"""Size of the packaged text if it has not been unpacked yet."""
UNMEASURED = {
    "tokalign++": "The mapping of one space onto the other is not included; it was not measured.",
    "tokalign++-hidden": "The model's hidden states are not included; they were not measured.",
    "omp": "Matching pursuit is not included: two minutes for 49,152 target tokens (docs/results/quality.md).",
}


@dataclass(frozen=True)
class Estimate:
    """The approximate cost of a run: seconds by step, in order; peak memory of its process; bytes to download first."""

    steps: dict[str, float]
    memory_bytes: int
    download_bytes: int
    note: str = ""

    @property
    def seconds(self) -> float:
        """Seconds of all steps together."""
        return sum(self.steps.values())


def estimate(
    recipe: str, sizes: tuple[int, int], text_bytes: int, model_bytes: int = 0, downloads: Sequence[str] = ()
) -> Estimate:
    """Estimate an align run.

    Raises `InputError` for an unknown recipe or asset.

    Parameters
    ----------
    recipe : a name of `RECIPES`
    sizes : tokens of source and target
    text_bytes : UTF-8 bytes of the text, the held-out part included
    model_bytes : size of the source model's files, if it is to be rearranged as well
    downloads : names of catalogue assets to fetch
    """
    method = check_recipe(recipe)
    megabytes, tokens = text_bytes / 1e6, sum(sizes)
    fixed, per_megabyte = VECTORS_S[method.trains]
    vectors = fixed + per_megabyte * megabytes
    steps = {"starting": START_S, "tokenising": TOKENISE_S_PER_MB * megabytes, "vectors": vectors}
    if method.space is not None:
        steps["comparing tokens"] = SEARCH_S_PER_TOKEN * tokens
    steps["computing rows"] = ROWS_S_PER_TOKEN * tokens
    steps["scoring"] = SCORE_S_PER_DOCUMENT * min(MOST_SCORED, FEWEST_SCORED + SCORED_PER_MB * megabytes)
    if method.space is not None:  # cached GloVe vectors are used again
        again = vectors if method.trains == "anchored" else 0.0
        steps["searching for held-out shared tokens"] = again + SEARCH_S_PER_TOKEN * tokens
    if model_bytes:
        steps["rearranging"] = REARRANGE_S + REARRANGE_S_PER_GB * model_bytes / 1e9
        steps["calibrating"] = CALIBRATE_S_PER_TOKEN * tokens + CALIBRATE_S_PER_GB * model_bytes / 1e9
    memory = (
        MEMORY_BYTES + ENCODER_BYTES + MEMORY_PER_TOKEN * tokens + MEMORY_PER_MB * megabytes + IN_MEMORY * model_bytes
    )
    note = UNMEASURED.get(recipe, "")
    return Estimate(
        {name: seconds for name, seconds in steps.items() if seconds},
        round(memory),
        sum({catalog.find(name).origin: catalog.find(name).size_bytes for name in downloads}.values()),
        f"Rates are from {MACHINE}. {note}".rstrip(),
    )


def size_of_texts(sources: Sequence[str], max_bytes: int | None = None) -> int:
    """Bytes of the texts that `read_documents` accepts, by file size; nothing is read or fetched.

    A hub data set counts as `max_bytes`, else `HUB_BYTES`: reading stops there.
    """
    total = 0
    for source in sources:
        path = from_home(source)
        if source.startswith("hub:"):
            total += max_bytes or HUB_BYTES
        elif path.is_dir():
            total += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        elif path.is_file():
            total += path.stat().st_size
        elif catalog.is_known(source):
            here = catalog.cached_path(source)
            total += DEFAULT_TEXT_BYTES if here is None else here.stat().st_size
    return total if max_bytes is None else min(total, max_bytes)


def size_of_model(name: str) -> int:
    """Bytes of a model's files; 0 if it is not on this machine."""
    path = catalog.cached_path(name) if catalog.is_known(name) else from_home(name)
    return 0 if path is None else bytes_of_files(path)


def to_download(names: Sequence[str]) -> list[str]:
    """Return the catalogue names that are not on this machine, including the encoder for scoring."""
    wanted = [name for name in (*names, "minilm") if catalog.is_known(name)]
    return [name for name in dict.fromkeys(wanted) if not where_from(name).here]
