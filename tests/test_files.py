import os

import pytest
import torch

from posekernels._files import write_aside


def test_a_file_is_whole_or_as_it_was(tmp_path):
    file = tmp_path / "a.txt"
    with write_aside(file) as aside:
        aside.write_text("old")
        assert aside.suffix == ".txt" and not file.exists()
    with pytest.raises(RuntimeError), write_aside(str(file)) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_weights_are_readable_as_other_files_are(tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "plain").write_text("")
    with write_aside(tmp_path / "a.safetensors") as aside:
        save_file({"a": torch.zeros(2)}, aside)  # which writes for its owner only
    assert os.stat(tmp_path / "a.safetensors").st_mode == os.stat(tmp_path / "plain").st_mode
