"""Opening the CMU training set: parsing its text files, against the binary cache (``train/data/expmap.py``)."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from bench.suite import Row
from posekernels.train.data.cmu_text import load_cmu

TURNS = 5


def cmu_rows(root: Path) -> list[Row]:
    """Two rows: "text", every file parsed; "cache", the same from a warm cache. Medians of interleaved turns."""
    before = os.environ.get("POSEKERNELS_CACHE")
    seconds: dict[str, list[float]] = {"text": [], "cache": []}
    with tempfile.TemporaryDirectory() as folder:
        places = {"text": "off", "cache": folder}
        try:
            os.environ["POSEKERNELS_CACHE"] = folder
            data = load_cmu(root)  # fills the cache
            for _ in range(TURNS):
                for name, place in places.items():
                    os.environ["POSEKERNELS_CACHE"] = place
                    start = time.perf_counter()
                    load_cmu(root)
                    seconds[name].append(time.perf_counter() - start)
        finally:
            os.environ.pop("POSEKERNELS_CACHE")
            if before is not None:
                os.environ["POSEKERNELS_CACHE"] = before
    size = f"clips={len(data.train) + len(data.test)}"
    rows = []
    for name, times in seconds.items():
        median, low, high = (1e6 * f(times) for f in (statistics.median, min, max))
        ratio = statistics.median(seconds["text"]) * 1e6 / median
        rows.append(Row("cmu data", size, "open", "", name, None, median, low, high, median, vs_eager=ratio))
    return rows
