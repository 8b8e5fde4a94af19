"""Co-occurrence counts from many machines, through Dask (`pip install 'tokalign-lab[cluster]'`).

A text is split into parts as in `text_counts.py`. A worker counts a part; this process writes the sums as runs and
merges them. Sums are integers, so the counts have the same bits as those of one process, for any number of workers and
any order. They are cached in the same folder, and GloVe on this text uses them.

The workers need no shared disk: a part is sent as 4 bytes per token of text and returned as 12 bytes per pair. If a
worker is killed, another one counts its part.
"""

from __future__ import annotations

import threading
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from tokalign_lab.errors import InputError, first_line, require_extra
from tokalign_lab.progress import Progress, silent
from tokalign_lab.vectors.cooccurrence import RowSums, weights_of
from tokalign_lab.vectors.stream import Stream, index_places, part_tokens
from tokalign_lab.vectors.text_counts import TextCounts, kept_tokens, load_or_count, merge_runs, write_rows

if TYPE_CHECKING:
    from tokalign_lab.corpus import Corpus

PART_TOKENS = 5_000_000
"""Tokens per task: 20 MB to send, and seconds of work. The result does not depend on this number."""
# numba's default threading layer allows one parallel region at a time, and a Dask worker may run several tasks at once.
_NUMBA_LOCK = threading.Lock()


def cluster_counts(
    address: str,
    corpus: Corpus,
    vocabulary_size: int,
    window: int = 15,
    min_count: int = 5,
    progress: Progress = silent,
) -> TextCounts:
    """Count co-occurrences of the tokens of a text on the workers of a Dask cluster, or load them from the cache.

    Raises `InputError` if Dask is not installed, no scheduler answers, the cluster has no workers, no token occurs
    `min_count` times, or all workers that tried to count one of the parts were killed.

    Parameters
    ----------
    address : address of the scheduler, such as "tcp://host:8786"
    corpus, vocabulary_size, window, min_count : as in `text_counts.text_counts`
    progress : called after every part
    """
    client = _connect(address)

    def count(folder: Path) -> None:
        from dask.distributed import KilledWorker, as_completed

        kept = kept_tokens(corpus, vocabulary_size, min_count)
        n, weights = len(kept.ids), weights_of(window, kept.counts)
        firsts = range(0, len(corpus.ids), PART_TOKENS)

        def submit(first: int) -> Any:
            last = min(first + PART_TOKENS, len(corpus.ids))
            part = part_tokens(corpus.ids, corpus.offsets, kept, first, last, window)
            return client.submit(_sum_part, *part, n, weights, pure=False)

        waiting = iter(firsts)
        if not client.nthreads():
            raise InputError("The cluster has no workers; start some, and count again.")
        # Only two tasks per thread of the cluster at a time, so that the whole text is never in memory.
        ahead = 2 * sum(client.nthreads().values())
        done = as_completed([submit(first) for first in islice(waiting, ahead)], with_results=True)
        runs: list[Path] = []
        try:
            for _, block in done:
                runs.append(write_rows(folder / f"run-{len(runs)}", [block]))
                for first in islice(waiting, 1):
                    done.add(submit(first))
                progress(len(runs) / len(firsts), f"counted part {len(runs)} of {len(firsts)}")
        except KilledWorker as error:
            raise InputError(
                f"{error.allowed_failures + 1} workers were killed while they counted one part of the text, most "
                "likely because their memory was full; give each worker more memory or fewer threads."
            ) from error
        merge_runs(folder, kept, runs)

    with client:
        return load_or_count(corpus, window, min_count, count)


def _connect(address: str) -> Any:
    require_extra("cluster", "distributed", "Counting on a cluster")
    from dask.distributed import Client

    try:
        return Client(address)
    except (OSError, ValueError) as error:
        raise InputError(
            f"No Dask scheduler answers at '{address}' ({first_line(error)}); check the address."
        ) from error


def _sum_part(tokens: NDArray[np.int32], begin: int, end: int, n: int, weights: NDArray[np.int64]) -> csr_array:
    """Count one part of a text, on a worker."""
    numbers = np.arange(n)
    # Arrays from the network are read-only, and numba would compile for those separately.
    stream = Stream(numbers, numbers, np.array(tokens), *index_places(np.array(tokens), begin, end, n))
    with _NUMBA_LOCK:
        return RowSums(stream, numbers.astype(np.int32), n, np.array(weights)).block(0, n, np.int64)
