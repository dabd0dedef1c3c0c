"""What comes before and after the networks of RTMPose, ViTPose and YOLO-pose, on stand-ins whose answers are known."""

import numpy as np
import pytest
from PIL import Image

from posekernels.archive import DataError
from posekernels.people.rtmpose import RTMPose, peaks
from posekernels.people.yolo_pose import YoloPose

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402


def save(path, nodes, size, outputs, constants=()):
    """A network with one image [1, 3, height, width] in."""
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, *size])
    made = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs]
    stored = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants]
    graph = helper.make_graph([helper.make_node(*n[:3], **n[3]) for n in nodes], "stand-in", [given], made, stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def detector(path, boxes, labels=None):
    """Finds these boxes, in pixels of a 320 x 320 square, whatever it sees."""
    boxes = np.asarray(boxes, np.float32).reshape(1, -1, 5)
    labels = np.zeros(boxes.shape[:2], np.int64) if labels is None else np.asarray([labels], np.int64)
    nodes = [("Identity", ["boxes"], ["dets"], {}), ("Identity", ["classes"], ["labels"], {})]
    outputs = [("dets", TensorProto.FLOAT), ("labels", TensorProto.INT64)]
    return save(path, nodes, (320, 320), outputs, [("boxes", boxes), ("classes", labels)])


def pose(path, joints=17):
    """All joints at the brightest column and row of the image; two bins a pixel, scores from 0 to 1 as bright."""
    nodes = [("Mul", ["image", "std"], ["back"], {}), ("Add", ["back", "mean"], ["grey"], {})]
    for name, over in (("x", [1, 2]), ("y", [1, 3])):
        nodes += [
            ("ReduceMax", ["grey"], [f"{name}1"], {"axes": over, "keepdims": 0}),
            ("Reshape", [f"{name}1", "column"], [f"{name}2"], {}),
            ("Expand", [f"{name}2", "twice"], [f"{name}3"], {}),
            ("Reshape", [f"{name}3", "row"], [f"{name}4"], {}),
            ("Expand", [f"{name}4", f"{name}5"], [name], {}),
        ]
    constants = [("column", np.array([1, -1, 1])), ("twice", np.array([1, 1, 2])), ("row", np.array([1, 1, -1]))]
    constants += [("x5", np.array([1, joints, 384])), ("y5", np.array([1, joints, 512]))]
    mean, std = np.array((123.675, 116.28, 103.53)), np.array((58.395, 57.12, 57.375))
    shape = (1, 3, 1, 1)
    constants += [("mean", (mean / 255).astype("f").reshape(shape)), ("std", (std / 255).astype("f").reshape(shape))]
    return save(path, nodes, (256, 192), [("x", TensorProto.FLOAT), ("y", TensorProto.FLOAT)], constants)


def picture(*dots, size=(640, 360)):
    image = np.zeros((size[1], size[0], 3), np.uint8)
    for x, y in dots:
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
    return image


def test_joints_come_back_in_pixels_of_the_image(tmp_path):
    # 640 x 360 in a square of 320: scaled by a half. The box holds the dot.
    finder = RTMPose(detector(tmp_path / "d.onnx", [150, 40, 190, 140, 0.9]), pose(tmp_path / "p.onnx"))
    assert finder.layout == "coco-17"
    (seen,) = finder(picture((350, 200)))
    assert seen.points.shape == (17, 2) and np.abs(seen.points - (350, 200)).max() < 3
    assert seen.scores.min() > 0.9


def test_the_surest_people_only_and_nothing_but_people(tmp_path):
    boxes = [[10, 40, 40, 140, 0.6], [150, 40, 190, 140, 0.9], [250, 40, 290, 140, 0.8], [80, 40, 110, 140, 0.3]]
    image = picture((50, 200), (350, 200), (540, 200), (190, 200))
    found = RTMPose(detector(tmp_path / "d.onnx", boxes), pose(tmp_path / "p.onnx"), people=2)(image)
    assert [round(s.points[0, 0] / 10) for s in found] == [35, 54]
    others = detector(tmp_path / "e.onnx", boxes, labels=[0, 1, 1, 0])
    assert [round(s.points[0, 0] / 10) for s in RTMPose(others, tmp_path / "p.onnx")(image)] == [5]


def test_nobody_where_no_joint_is_sure(tmp_path):
    finder = RTMPose(detector(tmp_path / "d.onnx", [150, 40, 190, 140, 0.9]), pose(tmp_path / "p.onnx", 26))
    assert finder.layout == "halpe-26" and finder(picture()) == []
    assert RTMPose(tmp_path / "d.onnx", pose(tmp_path / "w.onnx", 133)).layout == "coco-133"


def test_a_region_has_the_shape_of_the_networks_image(tmp_path):
    finder = RTMPose(detector(tmp_path / "d.onnx", np.zeros((0, 5))), pose(tmp_path / "p.onnx"))
    assert finder.find(Image.fromarray(picture())) == []
    wide = finder.region(np.array([0.0, 0.0]), np.array([300.0, 100.0]))
    assert wide.side == 1.25 * 400 and (wide.x, wide.y, wide.angle) == (150, 50, 0)


def test_files_that_are_something_else(tmp_path):
    d, p = detector(tmp_path / "d.onnx", np.zeros((0, 5))), pose(tmp_path / "p.onnx")
    with pytest.raises(DataError, match="expected boxes .* non-maximum suppression"):
        RTMPose(p, p)
    with pytest.raises(DataError, match="expected .*17, 26 or 133, bins"):
        RTMPose(d, d)
    with pytest.raises(DataError, match="17, 26 or 133"):
        RTMPose(d, pose(tmp_path / "q.onnx", 21))
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(DataError, match="cannot read it as a network"):
        RTMPose(tmp_path / "text.onnx", p)
    with pytest.raises(DataError, match="no such file"):
        RTMPose(tmp_path / "away.onnx", p)


def answering(path, answer, size=(256, 192)):
    """A network that answers this, whatever it sees."""
    answer = np.asarray(answer, np.float32)
    return save(path, [("Identity", ["all"], ["found"], {})], size, [("found", TensorProto.FLOAT)], [("all", answer)])


def test_the_top_of_a_heat_map_lies_between_its_cells():
    centres = np.array([[10.0, 20.0], [3.3, 40.7], [30.6, 5.45], [0.0, 63.0]])
    y, x = np.mgrid[:64, :48]
    square = (x - centres[:, 0, None, None]) ** 2 + (y - centres[:, 1, None, None]) ** 2
    points, scores = peaks((0.9 * np.exp(-square / 8)).astype(np.float32))
    assert np.abs(points[:3] - centres[:3]).max() < 1e-3 and np.abs(points[3] - centres[3]).max() <= 0.5
    assert np.all(np.abs(scores - 0.9) < 0.05)


def test_heat_maps_of_vitpose(tmp_path):
    y, x = np.mgrid[:64, :48]
    map_ = np.exp(-((x - 23.5) ** 2 + (y - 31.5) ** 2) / 8)  # its middle
    vitpose = answering(tmp_path / "v.onnx", np.repeat(map_[None], 17, 0)[None])
    finder = RTMPose(detector(tmp_path / "d.onnx", [150, 40, 190, 140, 0.9]), vitpose)
    (seen,) = finder(picture())
    assert finder.layout == "coco-17" and np.abs(seen.points - (340, 180)).max() < 2  # the middle of the box
    assert seen.scores.min() > 0.9


def yolo(*people):
    """[N, 56] as the raw network answers: box by its middle and size, score, 17 joints one beside the other."""
    rows = []
    for x, y, score in people:
        joints = np.stack((x + np.arange(17.0), np.full(17, y), np.full(17, 0.8)), -1)
        rows.append(np.concatenate(([x, y, 100, 200, score], joints.ravel())))
    return np.array(rows)


@pytest.mark.parametrize("reduced", [False, True])
def test_people_of_yolo_pose(tmp_path, reduced):
    # 640 x 360 in a square of 320: halved, with 70 rows of grey above
    rows = yolo((100, 150, 0.7), (200, 150, 0.9), *(() if reduced else [(203, 151, 0.6)]), (50, 100, 0.4))
    if reduced:
        corners = np.concatenate((rows[:, :2] - (50, 100), rows[:, :2] + (50, 100)), 1)
        answer = np.concatenate((corners, rows[:, 4:5], np.zeros((len(rows), 1)), rows[:, 5:]), 1)[None]
    else:
        answer = rows.T[None]
    finder = YoloPose(answering(tmp_path / "y.onnx", answer, (320, 320)))
    first, second = finder(picture())  # the surest first; who overlaps somebody surer is that person; 0.4 is nobody
    assert np.allclose(first.points[3], (406, 160)) and np.allclose(second.points[0], (200, 160))
    assert np.allclose(first.box, (400, 160, 432, 160)) and np.allclose(first.scores, 0.8)
    assert len(YoloPose(tmp_path / "y.onnx", people=1)(picture())) == 1
    assert finder.frame == 1 and finder.layout == "coco-17"


def test_yolo_without_joints_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"expected \[1, 56, N\] or, of nms=True, \[1, N, 57\] out, got \[\(1, 84, 9\)\]"
    ):
        YoloPose(answering(tmp_path / "y.onnx", np.zeros((1, 84, 9)), (320, 320)))
