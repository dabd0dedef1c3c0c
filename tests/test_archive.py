import argparse
import collections
import io
import json
import os
import pickle
import pickletools
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from posekernels.archive import (
    CheckpointError,
    DataError,
    open_json,
    read_checkpoint,
    read_json,
    read_npy,
    read_npz,
    read_pickle,
    write_npz,
)

ROOT = Path(__file__).resolve().parents[1]
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


# -- what a file can cost, and checkpoints ---------------------------------------------------------------------------
def put(stem: bytes) -> bytes:
    """A pickle of protocol 2 with ``stem`` as its content."""
    return b"\x80\x02" + stem + b"."


def costly_pickles():
    yield "memo index", put(b"]r\x00\x00\x00\x40]Q")  # 2^30: 8 GB in a list of C pointers
    yield "announced text", put(b"X\xff\xff\xff\x7fabc")
    yield "announced bytes", b"\x80\x05\x8e" + (1 << 40).to_bytes(8, "little") + b"abc."
    yield "announced bytearray", b"\x80\x05\x96" + (1 << 36).to_bytes(8, "little") + b"abc."
    yield "frame", b"\x80\x04\x95" + (1 << 40).to_bytes(8, "little") + b"}r\x00."
    text = b"X" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20)
    encode = b"c_codecs\nencode\nh\x01X\x06\x00\x00\x00latin1\x86R"
    yield "one text encoded 4,000 times", put(text + b"q\x010](" + encode * 4000 + b"e")
    yield "a key of tuples", put(b"}" + b")" + b"\x85" * 200_000 + b"K\x01s")  # hashing it overflows the stack
    yield "tuples", put(b")" + b"\x85" * 200_000)
    endless = b")" + b"q\x020h\x02h\x02\x86" * 60  # 2^60 brackets, if anybody writes it down
    yield "a type that is endless as text", put(b"cnumpy\ndtype\n" + endless + b"\x85R")
    yield "an encoding that is endless as text", put(b"c_codecs\nencode\nX\x00\x00\x00\x00" + endless + b"\x86R")
    objects = b"cnumpy._core.numeric\n_frombuffer\nq\x000cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87Rq\x010N"
    inside = b"q\x020h\x00(]h\x02ah\x01K\x01\x85X\x01\x00\x00\x00CtR"
    yield "objects in objects", put(objects + inside * 150_000)  # freeing them overflows the stack
    frombuffer = (
        b"cnumpy._core.numeric\n_frombuffer\n(X\x01\x00\x00\x00acnumpy\ndtype\nX\x02\x00\x00\x00u1\x89\x88\x87R"
    )
    yield "the state of an array", put(frombuffer + b"K\x01\x85X\x01\x00\x00\x00CtR(K\x01K\x01\x85tb")
    yield "marks", put(b"(" * 4_000_000)
    yield "lists", put(b"](" + b"]" * 8_000_000 + b"e")
    yield "dicts", put(b"](" + b"}" * 8_000_000 + b"e")
    yield "tuples in lists", put(b"](" + b"K\x01\x85" * 8_000_000 + b"e")
    yield "memos", b"\x80\x04]" + b"\x94" * 6_000_000 + b"."
    puts = np.full((4_000_000, 5), ord("r"), np.uint8)
    puts[:, 1:] = np.arange(len(puts), dtype="<u4").view(np.uint8).reshape(-1, 4)
    yield "memos by number", put(b"]" + puts.tobytes())
    same = b"".join(b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + b"K\x01" for n in range(1, 200_001))
    yield "numbers of one hash", put(b"}(" + same + b"u")
    lanes = b"".join(b"K\x00J" + n.to_bytes(4, "little") + b"\x86K\x01" for n in range(200_000))
    yield "more tuples than anybody needs", put(b"}(" + lanes + b"u")
    yield "and one by one", put(b"}" + lanes.replace(b"\x86K\x01", b"\x86K\x01s"))


READ = """
import os, resource, sys, time
from posekernels.archive import DataError, read_pickle

for path in sys.argv[1:]:  # each in a process of its own, which begins with no high-water mark
    if child := os.fork():
        os.waitpid(child, 0)
        continue
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    try:
        words = f"read: {type(read_pickle(path, most=64 << 20))}"
    except DataError as error:
        words = str(error).replace(path, "a.pkl")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(most, round(time.process_time(), 1), words, flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def costs(tmp_path_factory) -> dict[str, list[str]]:
    """{name: [KiB, seconds of this and of the imports, words]} of reading the costly pickles."""
    paths = {}
    for name, data in costly_pickles():
        paths[name] = tmp_path_factory.mktemp("costs") / "a.pkl"
        paths[name].write_bytes(data)
    command = [sys.executable, "-c", READ, *map(str, paths.values())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for path in paths.values():
        path.unlink()
    return dict(zip(paths, [line.split(" ", 2) for line in done.stdout.splitlines()], strict=True))


@pytest.mark.parametrize("name", [name for name, _ in costly_pickles()])
def test_a_pickle_costs_no_more_than_its_file(costs, name):
    kib, seconds, words = costs[name]
    assert re.match("a.pkl: (refused|not a readable)", words), words
    assert int(kib) < 300e3 and float(seconds) < 30


def test_dicts_of_many_keys_are_read(tmp_path):
    """Of numbers in a row, which hash apart, and as many tuples as a data set has."""
    many = {"frames": {n: n for n in range(100_000)}, "cameras": {("S1", n, 1.5): n for n in range(2000)}}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(many))
    assert read_pickle(tmp_path / "a.pkl") == many


def test_an_empty_array_of_objects_costs_nothing_however_long_its_other_axis(tmp_path):
    array = b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01(K\x00J\x00\x00\x00\x40t"
    objects = b"cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R"
    (tmp_path / "a.pkl").write_bytes(put(array + objects + b"\x89]tb"))
    assert read_pickle(tmp_path / "a.pkl").shape == (0, 1 << 30)


def npy(shape, dtype="<f8", data=b""):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue() + data


def test_headers_and_zips_that_announce_more_than_there_is(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy((17_000_000_000,)))
    with pytest.raises(DataError, match="its header announces 136,000,000,000 bytes, 128 are there"):
        read_npz(path)
    (tmp_path / "a.npy").write_bytes(npy((1 << 40, 1 << 40)))
    with pytest.raises(DataError, match="not a readable .npy file"):
        read_npy(tmp_path / "a.npy")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy((10_000_000,), "|u1", bytes(10_000_000)))
    assert path.stat().st_size < 20_000 and len(read_npz(path)["x"]) == 10_000_000
    with pytest.raises(DataError, match="unpacks to 0.00931 GiB, more than the 0.00781 GiB"):
        read_npz(path, most=8 << 20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.npy", npy((3,), "|u1", b"abc"))
    with pytest.raises(DataError, match=r"\[x.npy\]: compressed in a way that neither NumPy nor PyTorch writes"):
        read_npz(path)


def test_json_is_read_with_a_mark_and_to_a_depth(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": [1, null]}')
    assert read_json(path) == {"a": [1, None]}
    path.write_text('{"a": 1}', encoding="utf-16")  # as PowerShell writes it
    assert read_json(path) == {"a": 1}
    path.write_text("[" * 200_000)
    with pytest.raises(DataError, match="a.json: nested too deeply"):
        read_json(path)
    path.write_text("{")
    with pytest.raises(DataError, match="a.json: not a readable JSON file"):
        read_json(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints_come_back(tmp_path, zipped):
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    net(torch.rand(5, 3)).sum().backward()
    optimizer = torch.optim.Adam(net.parameters())
    optimizer.step()
    whole = torch.arange(24.0).reshape(2, 3, 4)
    state = {
        "model_pos": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "parameter": torch.nn.Parameter(torch.rand(2)),
        "views": [whole, whole[1, :, 2], whole.transpose(0, 2)],
        "kinds": [
            torch.ones(3, dtype=d) for d in (torch.bfloat16, torch.float16, torch.int64, torch.bool, torch.uint8)
        ],
        "empty": torch.zeros(0, 7),
        "numpy": [np.arange(4), np.float64(0.5), np.float32(2)],
        "random": np.random.RandomState(0),
        "epoch": 3,
        "size": whole.shape,
    }
    path = tmp_path / "a.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    got = read_checkpoint(path)

    def same(a, b):
        if isinstance(b, torch.Tensor):
            assert a.dtype == b.dtype and torch.equal(a, b.detach())
        elif isinstance(b, dict):
            assert list(a) == list(b)
            for key in b:
                same(a[key], b[key])
        elif isinstance(b, (list, tuple)):
            assert len(a) == len(b)
            for pair in zip(a, b):
                same(*pair)
        elif isinstance(b, np.ndarray):
            assert np.array_equal(a, b)
        else:
            assert a == b or isinstance(b, np.random.RandomState) and a is None

    same(got, state)
    assert got["views"][0].data_ptr() == got["views"][2].data_ptr()  # they share memory, as they did
    with pytest.raises(CheckpointError, match="unpacks to"):
        read_checkpoint(path, most=100)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match=r"a.pth: not a checkpoint .*\(truncated"):
        read_checkpoint(path)


def zipped(path: Path, pickled: bytes, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {"data.pkl": pickled, "byteorder": b"little", **files}.items():
            archive.writestr(f"archive/{name}", data)
    return path


TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
    b"X\x03\x00\x00\x00cpu%btQ%bt%bt\x89}tR"
)


def k(*numbers: int) -> bytes:
    return b"(" + b"".join(b"\x8a\x08" + n.to_bytes(8, "little", signed=True) for n in numbers)


@pytest.mark.parametrize(
    "count,offset,size,stride",
    [(4, 0, (5,), (1,)), (4, 2, (3,), (1,)), (4, 0, (1 << 40,), (0,)), (4, -1, (2,), (1,)), (4, 0, (2,), (-1,))]
    + [(1 << 40, 0, (2,), (1,)), (4, 0, (2, 2), (1,)), (4, 0, (-1,), (1,))],
)
def test_a_tensor_reaches_nothing_outside_its_storage(tmp_path, count, offset, size, stride):
    fill = k(count)[1:], k(offset)[1:] + k(*size), k(*stride)
    path = zipped(tmp_path / "a.pth", put(TENSOR % fill), **{"data/0": bytes(16)})
    with pytest.raises(CheckpointError, match="a.pth: not a checkpoint"):
        read_checkpoint(path)
    good = k(4)[1:], k(1)[1:] + k(3), k(1)
    assert read_checkpoint(zipped(path, put(TENSOR % good), **{"data/0": bytes(16)})).shape == (3,)


@pytest.mark.parametrize("name", ["collections\nCounter", "builtins\nset", "os\nsystem", "torch\nload"])
def test_hostile_checkpoints_are_refused(tmp_path, name):
    """NumPy's own constructor, asked for an array of objects at an address, handed to something that touches it."""
    array = (
        b"cnumpy\nndarray\n((J\x01\x00\x00\x00tcnumpy\ndtype\n(X\x02\x00\x00\x00O8\x89\x88tR"
        b"c_codecs\nencode\n(X\x08\x00\x00\x00AAAAAAAAX\x06\x00\x00\x00latin1tRtR"
    )
    path = zipped(tmp_path / "a.pth", put(b"c" + name.encode() + b"\n(" + array + b"tR"))
    with pytest.raises(CheckpointError, match=f"holds the name {name.replace(chr(10), '.')}, which is refused"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="a call of a name that only describes"):
        read_checkpoint(zipped(path, put(array)))


def legacy(content: bytes, keys: bytes, numbers: bytes = b"") -> bytes:
    """A file of before PyTorch 1.6."""
    head = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
    return head + put(content) + put(keys) + numbers


@pytest.mark.parametrize(
    "content,why",
    [
        (b"ccollections\nOrderedDict\n]]()" + b"\x85" * 200_000 + b"K\x01ea\x85R", "a key of type tuple"),
        (b"ccollections\nOrderedDict\nK\x01\x85R", "not made of pairs"),
        (b"ctorch\ndevice\n)" + b"q\x020h\x02h\x02\x86" * 60 + b"\x85R", "tuple where a text belongs"),
    ],
    ids=["keys of an OrderedDict", "no pairs", "a device endless as text"],
)
def test_a_checkpoint_costs_no_more_than_its_file(tmp_path, content, why):
    with pytest.raises(CheckpointError, match=why):
        read_checkpoint(zipped(tmp_path / "a.pth", put(content)))


def test_old_checkpoints_hold_just_the_numbers_of_their_tensors(tmp_path):
    path, tensor = tmp_path / "a.pth", TENSOR % (k(2)[1:], k(0)[1:] + k(2), k(1))
    viewed = tensor.replace(b"tQ", b"(X\x01\x00\x00\x001K\x00K\x02ttQ")
    numbers = (2).to_bytes(8, "little") + np.array([1.5, 2.5], "<f4").tobytes()
    path.write_bytes(legacy(tensor, b"]X\x01\x00\x00\x000a", numbers))
    assert read_checkpoint(path).tolist() == [1.5, 2.5]
    path.write_bytes(legacy(tensor, b"]"))  # what PyTorch's memory held before would be read
    with pytest.raises(CheckpointError, match="its numbers are not those of its tensors"):
        read_checkpoint(path)
    path.write_bytes(legacy(b"]", b"])" + b"\x85" * 200_000 + b"a"))
    with pytest.raises(CheckpointError, match="its numbers are not those of its tensors"):
        read_checkpoint(path)
    path.write_bytes(legacy(viewed, b"]X\x01\x00\x00\x000a", numbers))
    with pytest.raises(CheckpointError, match="a view of another storage"):
        read_checkpoint(path)


def test_json_read_on_the_way_is_what_reading_it_whole_gives(tmp_path):
    """Over the ends of what is read at once, which numbers and names straddle."""
    numbers = [[-1.5e-3 * i, i, None, 'é\\ud83d"', {"a": [], "b": {}}] for i in range(60000)]
    whole = {"first": True, "empty": [], "none": {}, "numbers": numbers, "last": 12345678901234567890}
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "x.json").write_text(json.dumps(whole, indent=1, ensure_ascii=False), encoding=encoding)
        with open_json(tmp_path / "x.json") as content:
            found = {}
            for name in content.names():
                if name == "numbers":
                    found[name] = [content.value() for _ in content.items()]
                    assert len(content.text) < 3 << 20
                elif name == "none":
                    content.skip()
                    found[name] = {}
                else:
                    found[name] = content.value()
            content.end()
        assert found == whole


@pytest.mark.parametrize("number", ["1.5", "12e5", "1e-7", "-3.25", "1.5E+10"])
def test_json_read_on_the_way_cuts_no_number(tmp_path, number):
    """Where the end of what is read at once is behind any of its characters."""
    head = '{"predictions":[],"stamps":[0'
    for offset in range(len(number) + 2):
        text = head + " " * ((1 << 20) - len(head) - 1 - offset) + f",{number},2]}}"
        (tmp_path / "x.json").write_text(text)
        with open_json(tmp_path / "x.json") as content:
            found = {name: [content.value() for _ in content.items()] for name in content.names()}
            content.end()
        assert found == json.loads(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2", "expected , or ], got the end"),
        ("[1 2]", "expected , or ], got 2"),
        ("[1, 2] 3", "'3' after its end"),
        ("[1, tru]", "Expecting value"),
        ("", "an empty file, expected JSON"),
        (" ", "expected [, got the end"),
        ("[" * 200000, "nested too deeply"),
    ],
)
def test_json_that_is_broken_is_told_when_it_is_come_to(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match="x.json: ") as caught, open_json(tmp_path / "x.json") as content:
        for _ in content.items():
            content.value()
        content.end()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_checkpoints_that_are_none_say_what_to_do_and_nothing_of_the_reader(tmp_path):
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    (tmp_path / "words.pth").write_text("root:x:0:0:root")
    for name in ("arrays.npz", "words.pth"):
        with pytest.raises(CheckpointError, match=r"\(truncated, empty or another kind of file\)$"):
            read_checkpoint(tmp_path / name)
    torch.save({"state_dict": {}, "args": argparse.Namespace(lr=1)}, tmp_path / "args.pth")
    with pytest.raises(
        CheckpointError, match=r"argparse.Namespace, which is refused\); .*torch.save\(model.state_dict"
    ):
        read_checkpoint(tmp_path / "args.pth")
