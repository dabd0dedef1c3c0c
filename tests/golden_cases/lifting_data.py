"""Cameras, metrics, kinematics and window generators: the data side of lifting and motion prediction."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from posekernels.models.lifting import both_ways, window_rows
from posekernels.pose import camera as cam
from posekernels.pose import kinematics, metrics
from posekernels.train.data.clips import Clip
from posekernels.train.data.windows import TrainWindows, mirror_camera, mirror_points
from tests.golden import Case, Handler


def cameras(case: Case) -> dict:
    out = {}
    for n, entry in enumerate(case.config["cameras"]):
        camera = cam.h36m_cameras(entry["subject"])[entry["camera_index"]]
        assert (camera.id, camera.width, camera.height) == (entry["id"], entry["res_w"], entry["res_h"])
        pose = camera.orientation, camera.translation
        seen = cam.world_to_camera(case[f"world_{n}"], *pose)
        points = np.concatenate((seen, case[f"camera_points_{n}"]))
        projected = cam.project(points, camera.intrinsics)
        centred = seen.copy()
        centred[:, 1:] -= seen[:, :1]
        out |= {
            f"orientation_{n}": camera.orientation,
            f"translation_{n}": camera.translation,
            f"intrinsic_{n}": camera.intrinsics,
            f"camera_{n}": seen,
            f"world_again_{n}": cam.camera_to_world(seen, *pose),
            f"centred_{n}": centred,
            f"projected_{n}": projected,
            f"projected_linear_{n}": cam.project_linear(points, camera.intrinsics),
            f"image_{n}": cam.denormalise_screen(projected, camera.width, camera.height),
            f"normalised_{n}": cam.normalise_screen(case[f"pixels_{n}"], camera.width, camera.height),
        }
    return out


def lifting_metrics(case: Case) -> dict:
    out, scores, rows = {}, metrics.PoseScores(), []
    for i, action in enumerate(case.config["sequence_actions"]):
        pair = torch.from_numpy(case[f"predicted_{i}"]), torch.from_numpy(case[f"target_{i}"])
        for p, metric in enumerate((metrics.mpjpe, metrics.p_mpjpe, metrics.n_mpjpe), 1):
            out[f"p{p}_frames_{i}"] = 1000 * metric(*pair, per_frame=True)
        scores.add(*pair, action)
        rows.append(scores.records[-1][3])
    table, mean = scores.per_action(), scores.average()
    out["sequences"] = np.array(rows)
    out["actions"] = np.array([[table[a][c] for c in metrics.COLUMNS] for a in case.config["action_names"]])
    out["mean"] = np.array([mean[c] for c in metrics.COLUMNS])
    predicted, target = case["predicted_batch"], case["target_batch"]
    out["weighted"] = metrics.weighted_mpjpe(predicted, target, case["weights"])
    out["p1_batch"] = metrics.mpjpe(predicted, target)
    out["p3_batch"] = metrics.n_mpjpe(predicted, target)
    return out


def forward_kinematics(case: Case) -> dict:
    body = {"h36m": kinematics.H36M_BODY, "cmu": kinematics.CMU_BODY}[case.config["dataset"]]
    return {name: kinematics.forward_kinematics(torch.from_numpy(case[name]), body) for name in case.outputs}


def generators(case: Case) -> dict:
    c = case.config
    clips = [
        Clip(str(i), "", 0, case[f"keypoints_{i}"], case[f"poses_{i}"], case[f"cameras_{i}"])
        for i in range(len(c["lengths"]))
    ]
    sides = (c["keypoints_left"], c["keypoints_right"]), (c["joints_left"], c["joints_right"])

    def epoch(windows, prefix: str) -> dict:
        batches = list(windows)
        return {
            f"{prefix}.pairs": np.concatenate([b.rows for b in batches]),
            f"{prefix}.batch_sizes": np.array([len(b.rows) for b in batches]),
            f"{prefix}.keypoints": torch.cat([b.keypoints for b in batches]),
            f"{prefix}.poses": torch.cat([b.poses for b in batches]),
            f"{prefix}.cameras": torch.cat([b.cameras for b in batches]),
        }

    train = TrainWindows(clips, c["batch_size"], *sides, pad=c["pad"], seed=c["random_seed"], augment=True)
    out = epoch(train, "train_epoch0") | epoch(train, "train_epoch1")
    out["train.frames_reported"] = np.array(train.frames_reported)
    if "chunked" in c:
        options = {n: c["chunked"][n] for n in ("chunk_length", "causal_shift", "augment", "shuffle")}
        windows = TrainWindows(clips, c["batch_size"], *sides, pad=c["pad"], seed=c["random_seed"], **options)
        out |= epoch(windows, "chunked")
    # A test takes whole clips; their windows, mirror images and ends are those of the published generators.
    pad = c["pad"]
    seen = [torch.from_numpy(clip.keypoints) for clip in clips]
    windows = torch.cat([k[window_rows(len(k), 2 * pad + 1, pad)] for k in seen])
    out["evaluate.poses"] = torch.cat([torch.from_numpy(clip.positions) for clip in clips])[:, None]
    out["evaluate.keypoints"] = windows[::4]
    out["evaluate.keypoints_flipped"] = mirror_points(windows, *sides[0])[::4]
    for i, (clip, keypoints) in enumerate(zip(clips, seen)):
        poses, camera = torch.from_numpy(clip.positions), torch.from_numpy(clip.intrinsics)
        for kind, shift in (("unchunked", 0), ("unchunked_causal", pad)):
            first, last = window_rows(len(keypoints), 2 * pad + 1, pad + shift)[[0, -1]]  # of both ends
            whole = keypoints[torch.cat((first[: pad + shift], torch.arange(len(keypoints)), last[pad + shift + 1 :]))]
            out[f"{kind}.keypoints_{i}"] = both_ways(whole, partial(mirror_points, left=sides[0][0], right=sides[0][1]))
            out[f"{kind}.poses_{i}"] = both_ways(poses, partial(mirror_points, left=sides[1][0], right=sides[1][1]))
            out[f"{kind}.cameras_{i}"] = both_ways(camera, mirror_camera)
    return out


HANDLERS = [
    Handler(lambda c: c.system == "lifting_generator", generators),
    Handler(lambda c: c.system == "h36m_camera", cameras),
    Handler(lambda c: c.system == "lifting_metrics", lifting_metrics),
    Handler(lambda c: c.config.get("kind") == "forward_kinematics", forward_kinematics),
]
