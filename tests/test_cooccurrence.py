"""Co-occurrence counts equal brute force and do not depend on parts, threads, machines or the memory limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from texts import byte_corpus, cooccurrence, corpus_of, random_corpus

from tokalign_lab.corpus import Corpus
from tokalign_lab.errors import InputError
from tokalign_lab.vectors.cluster import cluster_counts
from tokalign_lab.vectors.cooccurrence import RowSums, count_contexts, to_float, weights_of
from tokalign_lab.vectors.stream import keep_frequent, make_stream, part_stream
from tokalign_lab.vectors.text_counts import TextCounts, text_counts
from tokalign_lab.vectors.torch_backend import sum_contexts


def brute_force(documents: list[list[int]], min_count: int, window: int) -> dict[tuple[int, int], float]:
    """Count by Stanford's rule in plain Python: rare tokens are dropped before distances; weights are 1 / distance."""
    counts: dict[int, int] = defaultdict(int)
    for ids in documents:
        for i in ids:
            counts[i] += 1
    found: dict[tuple[int, int], float] = defaultdict(float)
    for ids in documents:
        kept = [i for i in ids if counts[i] >= min_count]
        for here, token in enumerate(kept):
            for there in range(max(0, here - window), here):
                found[token, kept[there]] += 1 / (here - there)
                found[kept[there], token] += 1 / (here - there)
    return found


def as_dict(counts: csr_array, ids: np.ndarray) -> dict[tuple[int, int], float]:
    rows = np.repeat(np.arange(len(ids)), np.diff(counts.indptr))
    return {(int(ids[r]), int(ids[c])): float(v) for r, c, v in zip(rows, counts.indices, counts.data, strict=True)}


documents_of_ids = st.lists(st.lists(st.integers(0, 7), max_size=30), min_size=1, max_size=6)


@settings(max_examples=60)
@given(documents_of_ids, st.integers(1, 4), st.integers(1, 16))
def test_cooccurrence_is_what_brute_force_counts(documents: list[list[int]], min_count: int, window: int) -> None:
    corpus = corpus_of(documents)
    stream = make_stream(corpus.ids, corpus.offsets, 8, min_count)
    found = as_dict(cooccurrence(stream, window), stream.ids)
    wanted = brute_force(documents, min_count, window)
    assert found.keys() == wanted.keys()
    for pair, value in wanted.items():
        assert found[pair] == pytest.approx(value, rel=1e-6)


def test_windows_end_where_documents_end() -> None:
    corpus = corpus_of([[1, 2], [3, 4]])
    stream = make_stream(corpus.ids, corpus.offsets, 5, 1)
    assert as_dict(cooccurrence(stream), stream.ids).keys() == {(1, 2), (2, 1), (3, 4), (4, 3)}


def test_rare_tokens_are_dropped_before_distances_are_counted() -> None:
    corpus = corpus_of([[1, 9, 2], [1, 2]])  # 9 occurs once: 1 and 2 are neighbours both times
    stream = make_stream(corpus.ids, corpus.offsets, 10, 2)
    assert as_dict(cooccurrence(stream), stream.ids) == {(1, 2): 2.0, (2, 1): 2.0}


def test_left_and_right_neighbours_can_be_counted_separately() -> None:
    corpus = corpus_of([[0, 1, 2]])
    stream = make_stream(corpus.ids, corpus.offsets, 3, 1)
    apart = count_contexts(stream, np.arange(3, dtype=np.int32), 6, window=1, right_offset=3)
    assert apart[[1]].indices.tolist() == [0, 5]  # 0 on the left, 2 on the right


def test_counts_do_not_depend_on_threads() -> None:
    corpus = random_corpus()
    stream = make_stream(corpus.ids, corpus.offsets, 30, 5)
    before = numba.get_num_threads()
    results = []
    for n in {1, before}:
        numba.set_num_threads(n)
        results.append(cooccurrence(stream))
    numba.set_num_threads(before)
    for one in results[1:]:
        assert bits(one) == bits(results[0])


# --- sums do not depend on where the text is cut


def bits(counts: csr_array) -> tuple[bytes, bytes, bytes]:
    return counts.indptr.tobytes(), counts.indices.tobytes(), counts.data.tobytes()


def dense_sums(stream: object, n: int, window: int) -> np.ndarray:
    rows = RowSums(stream, np.arange(n, dtype=np.int32), n, weights_of(window, stream.counts))
    return rows.block(0, n, np.int64).toarray()


@settings(max_examples=60)
@given(documents_of_ids, st.integers(1, 3), st.integers(1, 9), st.integers(1, 40))
def test_sums_of_parts_add_up_to_the_sums_of_the_text(
    documents: list[list[int]], min_count: int, window: int, size: int
) -> None:
    corpus = corpus_of(documents)
    kept = keep_frequent(corpus.ids, 8, min_count)
    n, length = len(kept.ids), len(corpus.ids)
    whole = dense_sums(make_stream(corpus.ids, corpus.offsets, 8, min_count), n, window)
    parts = [
        dense_sums(part_stream(corpus.ids, corpus.offsets, kept, first, min(first + size, length), window), n, window)
        for first in range(0, length, size)
    ]
    assert (sum(parts, np.zeros_like(whole)) == whole).all()


def test_a_long_sum_is_exact() -> None:
    # A thousand times 1/3, which would sum to 333.3314 in float32.
    corpus = corpus_of([[0, 2, 2, 1]] * 1000)
    stream = make_stream(corpus.ids, corpus.offsets, 3, 1)
    found = as_dict(cooccurrence(stream, 3), stream.ids)
    assert found[0, 1] == np.float32(1000 / 3)


def test_sums_that_would_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="400,000,000 times"):
        weights_of(15, np.array([3, 400_000_000]))


# --- a memory limit


def counted(corpus: Corpus, size: int, max_bytes: int | None = None, window: int = 15) -> tuple[TextCounts, int]:
    """Return the counts, and the number of parts that the text was cut into."""
    reported: list[str] = []
    options = {} if max_bytes is None else {"max_bytes": max_bytes}
    made = text_counts(
        corpus,
        size,
        window,
        cached=False,
        device="cpu",
        progress=lambda _, message: reported.append(message),
        **options,
    )
    return made, len(reported)


def test_a_memory_limit_does_not_change_the_counts() -> None:
    corpus = random_corpus(60, 50)
    stream = make_stream(corpus.ids, corpus.offsets, 50, 5)
    expected = cooccurrence(stream, device="cpu")
    parts = set()
    for max_bytes in (None, 200_000, 100_000, 60_000):
        made, n = counted(corpus, 50, max_bytes)
        parts.add(n)
        assert made.ids.tolist() == stream.ids.tolist()
        assert made.occurrences.tolist() == stream.counts.tolist()
        assert bits(made.counts) == bits(expected)
    assert parts == {1, 2, 3, 4}


def test_a_document_may_be_longer_than_a_part() -> None:
    random = np.random.default_rng(0)
    corpus = corpus_of([[1, 2], random.integers(0, 40, 8000).tolist(), [3, 4]])
    made, parts = counted(corpus, 40, 120_000)
    assert parts > 2
    assert bits(made.counts) == bits(counted(corpus, 40)[0].counts)


def test_an_impossible_memory_limit_is_refused() -> None:
    with pytest.raises(InputError, match=r"needs at least .* MB of memory, but max_bytes allows 0\.0 MB"):
        counted(random_corpus(), 30, 1000)


MEASURE = """
import re, sys
import numpy as np
from tokalign_lab.corpus import Corpus
from tokalign_lab.vectors.text_counts import text_counts

def corpus(n):
    ids = np.minimum(np.random.default_rng(0).zipf(1.1, n), 6000).astype(np.int32) - 1
    return Corpus(ids, np.array([0, n]), np.array([n]), "v", f"{n}")

def peak():  # ru_maxrss would be the parent's
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])

text = corpus(600_000)
parts = []
text_counts(corpus(1000), 6000, max_bytes=10**8, cached=False, device="cpu")  # load what is loaded once
for max_bytes in (14_000_000, 2**31):
    before = peak()
    text_counts(
        text, 6000, max_bytes=max_bytes, cached=False, device="cpu", progress=lambda _, message: parts.append(message)
    )
    print(len(parts), peak() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_memory_limit_is_respected() -> None:
    result = subprocess.run(
        [sys.executable, "-c", MEASURE], capture_output=True, text=True, check=False,
        env={**os.environ, "NUMBA_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    (parts, held), (_, more) = ([int(word) for word in line.split()] for line in result.stdout.splitlines())
    assert parts > 1
    assert held < 14_000_000 + 2_000_000  # the second number is for Python's own small objects
    assert more > 14_000_000  # without the limit it takes more


# --- cached by content


def test_counts_are_remembered_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path))
    corpus = byte_corpus()
    first = text_counts(corpus, 256)
    (folder,) = (tmp_path / "counts").iterdir()
    assert {path.name for path in folder.iterdir()} == {
        "ids.npy", "occurrences.npy", "starts.npy", "columns.i32", "values.f32", ".checksums.json"
    }  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr("tokalign_lab.vectors.text_counts.keep_frequent", None)  # counting again would fail
        assert bits(text_counts(corpus, 256).counts) == bits(first.counts)
    (folder / "values.f32").write_bytes(b"cut off")
    assert bits(text_counts(corpus, 256).counts) == bits(counted(corpus, 256)[0].counts)
    text_counts(corpus, 256, window=3)
    text_counts(corpus, 256, min_count=2)
    assert len(list((tmp_path / "counts").iterdir())) == 3


def test_tokens_without_neighbours_are_counted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path))
    lonely = corpus_of([[1]] * 5 + [[2]] * 5)
    for _ in range(2):
        made = text_counts(lonely, 3)
        assert made.ids.tolist() == [1, 2]
        assert made.counts.nnz == 0


def test_text_of_rare_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="No token occurs 5 times"):
        counted(corpus_of([[1, 2, 3]]), 4)
    with pytest.raises(InputError, match="No token occurs 5 times"):
        counted(corpus_of([[]]), 4)


# --- other devices, other machines


@pytest.mark.parametrize("chunk", [13, 10**6])
@pytest.mark.parametrize("apart", [False, True])
def test_torch_counts_the_same_bits(chunk: int, apart: bool) -> None:
    corpus = random_corpus(40, 30)
    kept = keep_frequent(corpus.ids, 30, 5)
    n = len(kept.ids)
    columns = (
        np.where(np.arange(n) % 3 == 1, -1, np.arange(n)).astype(np.int32) if apart else np.arange(n, dtype=np.int32)
    )
    sizes = (2 * n, n) if apart else (n, 0)
    for first, last in ((0, len(corpus.ids)), (700, 1400)):
        stream = part_stream(corpus.ids, corpus.offsets, kept, first, last, 15)
        expected = count_contexts(stream, columns, sizes[0], right_offset=sizes[1], device="cpu")
        sums = sum_contexts(stream, columns, sizes[0], weights_of(15, stream.counts), sizes[1], "cpu", chunk)
        assert bits(to_float(sums)) == bits(expected)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    distributed = pytest.importorskip("dask.distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, protocol="tcp"
    ) as cluster:
        yield cluster.scheduler_address


def test_a_cluster_counts_the_same_bits(scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dask.distributed import Client

    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path))
    monkeypatch.setattr("tokalign_lab.vectors.cluster.PART_TOKENS", 700)
    corpus = random_corpus(60, 50)
    expected = counted(corpus, 50)[0]
    reported: list[float] = []
    with Client(scheduler) as client:
        assert len(client.scheduler_info()["workers"]) == 2
    made = cluster_counts(scheduler, corpus, 50, progress=lambda s, _: reported.append(s))
    assert bits(made.counts) == bits(expected.counts)
    assert made.ids.tolist() == expected.ids.tolist()
    assert len(reported) > 4
    assert reported[-1] == 1.0
    # The counts are in the cache, where this process finds them.
    monkeypatch.setattr("tokalign_lab.vectors.text_counts.keep_frequent", None)
    assert bits(text_counts(corpus, 50).counts) == bits(expected.counts)


def test_a_killed_worker_changes_no_bit(scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dask.distributed import Client

    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path))
    monkeypatch.setattr("tokalign_lab.vectors.cluster.PART_TOKENS", 100)
    corpus = random_corpus(60, 50)
    expected = counted(corpus, 50)[0]
    killed: list[int] = []

    with Client(scheduler) as client:

        def kill_one(share: float, message: str) -> None:
            if not killed and share < 0.5:
                killed.append(client.submit(os.getpid, pure=False).result())
                os.kill(killed[0], signal.SIGKILL)

        made = cluster_counts(scheduler, corpus, 50, progress=kill_one)
    assert killed
    assert bits(made.counts) == bits(expected.counts)
    assert made.ids.tolist() == expected.ids.tolist()


def test_a_part_that_kills_every_worker_ends_in_one_sentence(
    scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path))
    monkeypatch.setattr("tokalign_lab.vectors.cluster._sum_part", _killed_four_times)
    with pytest.raises(InputError, match="4 workers were killed while they counted one part of the text"):
        cluster_counts(scheduler, random_corpus(60, 50), 50)


def _killed_four_times(*_: object) -> None:
    """Raise the error that Dask raises, after 20 seconds, when four workers were killed."""
    from dask.distributed import KilledWorker

    raise KilledWorker("part", SimpleNamespace(address="tcp://127.0.0.1:9"), 3)


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'tokalign-lab\[cluster\]'"):
        cluster_counts("tcp://127.0.0.1:8786", random_corpus(), 30)


def test_an_invalid_scheduler_address_is_refused() -> None:
    pytest.importorskip("dask.distributed")
    with pytest.raises(InputError, match="No Dask scheduler answers at 'nonsense://here'"):
        cluster_counts("nonsense://here", random_corpus(), 30)


@pytest.mark.parametrize("strange", [-1, 300])
def test_an_id_beyond_the_vocabulary_is_refused(strange: int) -> None:
    with pytest.raises(InputError, match="the vocabulary has only 300"):
        keep_frequent(np.array([1, 2, strange], np.int32), 300)


def test_a_damaged_cache_of_counts_is_counted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKALIGN_CACHE", str(tmp_path))
    corpus = random_corpus(20, 50)
    whole = text_counts(corpus, 50, 5, 1)
    values = np.array(whole.counts.data)
    for file in (tmp_path / "counts").glob("*/*.npy"):
        file.write_bytes(b"")
    again = text_counts(corpus, 50, 5, 1)
    assert np.array_equal(again.counts.data, values)
