"""The units of ``python -m bench``, one test for each way to compute one: checked against float64, then timed."""

from __future__ import annotations

import pytest

from bench.suite import prepare


def test_unit(benchmark, unit, way):
    benchmark.group = str(unit)
    with unit.precision.applied():
        rows, calls = prepare(unit, [way])
        if not calls:
            reason = rows[way].rejected
            pytest.fail(reason) if reason.startswith("error") else pytest.skip(reason)
        benchmark.extra_info["error"] = rows[way].error
        benchmark(calls[way])
