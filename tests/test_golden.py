"""Every golden case that code handles is met, where the cases are at hand."""

import pytest

from tests import golden

FOLDER = golden.DEFAULT_FOLDER
CASES = sorted(p.stem for p in FOLDER.glob("*.json"))


def test_no_cases_says_where_it_looked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(golden, "DEFAULT_FOLDER", tmp_path)
    assert golden.main([]) == 2 and "without FOLDER they are looked for beside the checkout" in capsys.readouterr().err
    assert golden.main([str(tmp_path / "x")]) == 2 and "beside" not in capsys.readouterr().err


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
