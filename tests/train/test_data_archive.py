import collections
import io
import os
import pickle
import pickletools
import zipfile

import numpy as np
import pytest

from posekernels.archive import DataError, read_npz, read_pickle, write_npz

TREE = {
    "S1": {"Walking 1": np.arange(24, dtype=np.float32).reshape(2, 4, 3), "list": [np.eye(2), 3, "x", (1.5, None)]},
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "empty": np.zeros((0, 3), np.int16),
    "big endian": np.arange(3, dtype=">f8"),
    "text": np.array(["a", "bcd"]),
    "objects": np.array([[[1, 2], [3, 4]], None], dtype=object),
    "scalar": np.float64(2.5),
}


def assert_same(got, want):
    if isinstance(want, dict):
        assert list(got) == list(want)
        for key in want:
            assert_same(got[key], want[key])
    elif isinstance(want, np.ndarray):
        assert got.dtype == want.dtype.newbyteorder("=") and got.shape == want.shape
        assert all(map(np.array_equal, got.ravel(), want.ravel())) and got.flags.writeable
    elif isinstance(want, (list, tuple)):
        assert type(got) is type(want) and len(got) == len(want)
        for pair in zip(got, want):
            assert_same(*pair)
    else:
        assert got == want


def test_round_trip(tmp_path):
    write_npz(tmp_path / "a.npz", positions_3d=TREE, plain=np.arange(5))
    got = read_npz(tmp_path / "a.npz", "positions_3d", "plain")
    assert_same(got["positions_3d"], TREE)
    assert_same(got["plain"], np.arange(5))
    assert os.listdir(tmp_path) == ["a.npz"]


@pytest.mark.parametrize("protocol", range(6))
def test_every_pickle_protocol(tmp_path, protocol):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(TREE, protocol))
    assert_same(read_pickle(tmp_path / "a.pkl"), TREE)


def test_python_2_pickle(tmp_path):
    array = np.arange(3, dtype="<f4")
    raw = array.tobytes()
    assert max(raw) > 127  # bytes that are no text but in latin-1
    body = b"U" + bytes([len(raw)]) + raw  # SHORT_BINSTRING, as Python 2 wrote array data
    py2 = (
        b"\x80\x02}q\x00U\x03abcq\x01cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + body
        + b"tbs."
    )
    pickletools.dis(py2, io.StringIO())
    (tmp_path / "a.pkl").write_bytes(py2)
    assert_same(read_pickle(tmp_path / "a.pkl"), {"abc": array})


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def hostile_pickles(target):
    yield "call", pickle.dumps({"S1": Bomb(target)})
    yield "old protocol", pickle.dumps(Bomb(target), 0)
    yield "instance", b"(S'" + str(target).encode() + b"'\nios\nmkdir\n."
    yield "type", pickle.dumps(np.random.RandomState)
    yield "set", pickle.dumps({1, 2})
    yield "ordered", pickle.dumps(collections.OrderedDict(a=1))
    yield "persistent", b"Pabc\n."
    structured = np.zeros(2, [("a", "f4"), ("b", "i4")])
    yield "structured", pickle.dumps(structured)
    yield "dates", pickle.dumps(np.zeros(2, "M8[s]"))
    yield "bare name", b"cnumpy\nndarray\n."
    yield "state of a name", b"cnumpy.core.multiarray\n_reconstruct\n}U\x08__call__K\x01sb."
    nested = b"\x80\x02" + b"(" * 200 + b"l" * 200 + b"."
    yield "deep", nested


@pytest.mark.parametrize("index", range(12))
def test_hostile_pickles_are_refused_and_not_run(tmp_path, index):
    target = tmp_path / "owned"
    _name, data = list(hostile_pickles(target))[index]
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(DataError, match="a.pkl: (refused|not a readable)") as caught:
        read_pickle(tmp_path / "a.pkl")
    assert not target.exists() and "\n" not in str(caught.value)


def test_hostile_archive(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, positions_3d=np.array({"S1": Bomb(tmp_path / "owned")}, dtype=object))
    with pytest.raises(
        DataError, match=r"positions_3d.npy\]: refused, nothing in it was run: it holds the name \w+.mkdir"
    ):
        read_npz(path)
    assert not (tmp_path / "owned").exists()


def test_one_object_used_many_times_is_walked_once(tmp_path):
    value = [1]
    for _ in range(40):
        value = [value, value]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(value))
    assert read_pickle(tmp_path / "a.pkl")[0] is not None  # 2**40 steps otherwise


def test_broken_files(tmp_path):
    with pytest.raises(DataError, match="missing.npz: no such file"):
        read_npz(tmp_path / "missing.npz")
    path = tmp_path / "a.npz"
    write_npz(path, positions_3d=TREE)
    with pytest.raises(DataError, match="expected the key 'metadata', the archive has positions_3d"):
        read_npz(path, "metadata")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a readable .npz"):
        read_npz(path)
    path.write_text("hello")
    with pytest.raises(DataError, match="not a readable .npz"):
        read_npz(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00v\x00not a header")
    with pytest.raises(DataError, match="not a readable .npz"):
        read_npz(path)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(TREE)[:-9])
    with pytest.raises(DataError, match="not a readable pickle"):
        read_pickle(tmp_path / "a.pkl")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path, a=np.arange(3))
    with pytest.raises(AttributeError):
        write_npz(path, a=np.array([lambda: 0], dtype=object))
    assert_same(read_npz(path)["a"], np.arange(3))
    assert os.listdir(tmp_path) == ["a.npz"]
