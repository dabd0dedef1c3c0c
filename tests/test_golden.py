"""Every golden case that code handles is met, where the cases are at hand."""

import pytest

from tests import golden

FOLDER = golden.DEFAULT_FOLDER
CASES = sorted(p.stem for p in FOLDER.glob("*.json"))


@pytest.mark.skipif(not CASES, reason=f"no golden cases in {FOLDER}")
@pytest.mark.parametrize("name", CASES)
def test_golden(name):
    try:
        status, errors = golden.run(golden.load(FOLDER, name), golden.handlers())
    except golden.Skip as reason:
        pytest.skip(str(reason))
    if status == "unsupported":
        pytest.skip("no code handles this kind of case yet")
    assert status == "ok", errors
