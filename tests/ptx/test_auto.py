"""``auto`` checks compiled kernels on their first use, and passes a broken one over."""

import pytest

pytest.importorskip("triton")

from tests.ptx import auto  # noqa: E402


def test_a_good_kernel_is_kept(pool):
    assert pool.submit(auto.three_calls, False).result() == (
        [1, 2, 3],
        ["graph_conv / triton / bfloat16 / a card: good"],
        True,
    )


def test_a_broken_kernel_is_found_and_passed_over(pool):
    launches, verdicts, right = pool.submit(auto.three_calls, True).result()
    assert right and launches == [1, 1, 1]
    assert len(verdicts) == 1 and "differs from the reference" in verdicts[0]
