"""Work is done once, whether pytest runs tests one by one or side by side."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.ptx.workers import Answers


@pytest.mark.parametrize("ahead", [True, False])
def test_a_case_is_run_once(ahead):
    ran = []
    with ThreadPoolExecutor(1) as pool:
        answers = Answers(pool, lambda a, b: ran.append((a, b)) or a + b, [(1, 2), (3, 4)], ahead=ahead)
        assert [answers[1, 2], answers[1, 2]] == [3, 3]
    assert ran == ([(1, 2), (3, 4)] if ahead else [(1, 2)])
