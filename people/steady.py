"""Where somebody is over a clip, by the image and by feet that stand: ``steadied``, and legs that reach there."""

from __future__ import annotations

import numpy as np

from posekernels.pose.smoothing import savitzky_golay

STILL = 0.3  # m/s: an ankle that is slower in the image, and not much faster in space, stands
MOMENT, BACK = 0.25, 0.05  # seconds, metres: a foot that is back so soon, so near, stood all the while
CREEP = 0.02  # m/s: how still feet that stand are
OFF = 0.06  # metres: how far a lifted joint is from where the image shows it
LEG = 0.04  # metres: how far a lifted ankle is from where it is, seen from the root
LASTING = 0.2  # seconds: for how long errors of pose and image are alike
PUSH = 5.0  # m/s^2: accelerations of the root
CALM, LONG = 0.02, 1.0  # m/s towards the camera or away, of somebody whose feet both stand for so many seconds
LEVEL = 0.05  # metres: how far footholds on one floor are from it; on a stair or a box they hardly count
TURNS = 3  # of weighing feet by how well they agree
RAMP = 0.15  # seconds in which a leg comes from where it stood to where it was lifted
STRETCH = 0.3  # of a leg, to where its foot stands; the rest would bend the knee for errors of the hips
FEET = ((1, 2, 3), (4, 5, 6))
ANKLES = [3, 6]


def still_feet(points: np.ndarray, placed: np.ndarray, focal: float, fps: float) -> np.ndarray:
    """[T - 1, 2] bool: which ankles (right, left) stand from a frame to the next.

    Args:
        points: [T, 17, 2] pixels. placed: [T, 17, 3] metres, camera axes. focal: pixels.
    """
    span = 2 * max(1, round(0.08 * fps)) + 1
    seen = points[:, ANKLES].astype(np.float32)
    seen = savitzky_golay(np.where(np.isfinite(seen), seen, np.nan), span, 1)
    space = savitzky_golay(placed[:, ANKLES].astype(np.float32), span, 1)
    across = np.linalg.norm(np.diff(seen, axis=0), axis=-1) / focal * placed[:-1, ANKLES, 2] * fps
    speed = np.linalg.norm(np.diff(space, axis=0), axis=-1) * fps
    still = (across < STILL) & (speed < 3 * STILL)
    for side, foot in enumerate(still.T):
        for a, b in stretches(~foot, 1):  # a moment in which a foot that is back at once only seemed to move
            back = np.linalg.norm(seen[b, side] - seen[a, side]) / focal * placed[a, ANKLES[side], 2] < BACK
            if a > 0 and b < len(foot) and b - a <= MOMENT * fps and back:
                foot[a:b] = True
    return still


def standing(still: np.ndarray) -> np.ndarray:
    """[T, ...] bool: the frames at both ends of the steps [T - 1, ...]."""
    nobody = np.zeros((1, *still.shape[1:]), bool)
    return np.concatenate((still, nobody)) | np.concatenate((nobody, still))


def stretches(steps: np.ndarray, shortest: int) -> list[tuple[int, int]]:
    """[first, end) of the steps [T] that are true for ``shortest`` or more in a row."""
    edges = np.flatnonzero(np.diff(np.r_[0, steps, 0])).tolist()
    return [(a, b) for a, b in zip(edges[::2], edges[1::2]) if b - a >= shortest]


def steadied(
    normal: np.ndarray,
    right: np.ndarray,
    poses: np.ndarray,
    still: np.ndarray,
    fps: float,
    ground: tuple[np.ndarray, float] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The smooth way of the root that agrees with the image and with feet that stand, and where these stand.

    Least squares over all frames at once, for place and speed of the root and the places of both feet. A foot keeps its
    place as long as it stands; one far from where the lifted leg has it counts less and less (Cauchy). Of somebody who
    stands on both feet, an image hardly shows how the hips come and go in depth, and errors of the pose look like it.

    Args:
        normal, right: of ``path_equations``.
        poses: [T, 17, 3] metres, root at 0. still: [T - 1, 2], of ``still_feet``.
        ground: [3] up, and how far up the floor is: feet stand on it, unless they clearly do not. None where unknown.
    Returns:
        [T, 3] and [T, 2, 3] metres; feet (right, left) are anywhere while they do not stand.
    """
    T, eye, stands, ankles = len(poses), np.eye(3), standing(still), poses[:, ANKLES]
    root, speed, feet = slice(0, 3), slice(3, 6), (slice(6, 9), slice(9, 12))
    own = min(1.0, 1 / (LASTING * fps))  # of a frame's errors, what is not the next one's too
    diagonal, above, wanted = np.zeros((T, 12, 12)), np.zeros((T - 1, 12, 12)), np.zeros((T, 12))
    diagonal[:, root, root] += normal * (own / OFF**2)
    wanted[:, root] += right * (own / OFF**2)
    step = np.kron([[1, 1], [0, 1]], eye)  # place and speed, a frame later
    push = np.kron(np.linalg.inv([[1 / 3, 1 / 2], [1 / 2, 1]]), eye) / (PUSH / fps**2) ** 2
    diagonal[:-1, :6, :6] += step.T @ push @ step
    diagonal[1:, :6, :6] += push
    above[:, :6, :6] -= step.T @ push
    diagonal += (1e-9 + 1e-14 * push.max()) * np.eye(12)  # of whom nothing is seen, there is a place all the same
    rays = np.linalg.solve(normal, right[..., None])[..., 0]
    rays /= np.maximum(np.linalg.norm(rays, axis=-1, keepdims=True), 1e-9)
    for a, b in stretches(still.all(1), round(LONG * fps)):
        diagonal[a : b + 1, speed, speed] += rays[a : b + 1, :, None] * rays[a : b + 1, None] * own * (fps / CALM) ** 2
    for side, foot in enumerate(feet):
        stays = np.where(still[:, side], (fps / CREEP) ** 2, 1e-6)[:, None, None] * eye
        diagonal[:-1, foot, foot] += stays
        diagonal[1:, foot, foot] += stays
        above[:, foot, foot] -= stays
    trust, firm = np.ones((T, 2)), np.zeros((T, 2))  # at first by the image alone: a stair is no floor
    for _ in range(TURNS):
        matrix, vector = diagonal.copy(), wanted.copy()
        for side, foot in enumerate(feet):
            weight = (stands * trust)[:, side, None] * (own / LEG**2)
            here = weight[..., None] * eye  # root + ankle = foot
            for one, other in ((root, foot), (foot, root)):
                matrix[:, one, one] += here
                matrix[:, one, other] -= here
            vector[:, root] -= weight * ankles[:, side]
            vector[:, foot] += weight * ankles[:, side]
            if ground is not None:
                up, level = ground
                weight = (stands * firm)[:, side, None] * (own / LEVEL**2)
                matrix[:, foot, foot] += weight[..., None] * np.outer(up, up)
                vector[:, foot] += weight * level * up
        found = chained(matrix, above, vector)
        places = np.stack([found[:, foot] for foot in feet], 1)
        trust = 1 / (1 + ((found[:, None, root] + ankles - places) ** 2).sum(-1) / (2 * LEG) ** 2)
        if ground is not None:
            firm = 1 / (1 + ((places @ ground[0] - ground[1]) / (2 * LEVEL)) ** 2) ** 2
    return found[:, root], places


def chained(diagonal: np.ndarray, above: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """[T, n] solution of symmetric equations in which each frame knows only the one before and the one after.

    Every other frame is taken out, all at once, and the rest solved in the same way (cyclic reduction).

    Args:
        diagonal: [T, n, n] blocks. above: [T - 1, n, n], of a frame's rows and the next one's columns. wanted: [T, n].
    """
    T, n = wanted.shape
    if T == 1:
        return np.linalg.solve(diagonal, wanted[..., None])[..., 0]
    before, after = above[0::2], np.zeros((T // 2, n, n))
    after[: len(above[1::2])] = above[1::2]  # where T is even, nobody comes after the last
    sides = np.concatenate((before.swapaxes(1, 2), after, wanted[1::2, :, None]), -1)
    by_before, by_after, alone = np.split(np.linalg.solve(diagonal[1::2], sides), (n, 2 * n), -1)
    rest, right, later = diagonal[0::2].copy(), wanted[0::2].copy(), (T - 1) // 2
    rest[: T // 2] -= before @ by_before
    right[: T // 2] -= (before @ alone)[..., 0]
    rest[1:] -= (after.swapaxes(1, 2) @ by_after)[:later]
    right[1:] -= (after.swapaxes(1, 2) @ alone)[:later, :, 0]
    found = np.zeros((T + 2, n))
    found[0:T:2] = even = chained(rest, -(before @ by_after)[:later], right)
    odd = alone - by_before @ even[: T // 2, :, None] - by_after @ found[2 : T + 2 : 2][: T // 2, :, None]
    found[1:T:2] = odd[..., 0]
    return found[:T]


def planted(
    poses: np.ndarray,
    path: np.ndarray,
    places: np.ndarray,
    still: np.ndarray,
    fps: float,
    stretch: float = STRETCH,
) -> np.ndarray:
    """Poses [T, 17, 3], root at 0, whose feet are where they stand; legs bend and turn for it, as long as before.

    Args:
        path, places, still: of ``steadied``. stretch: how far legs bend or straighten for it, from 0 to 1.
    """
    stands, ramp, times = standing(still), max(1, round(RAMP * fps)), np.arange(len(poses))
    found = poses.copy()
    for side, (hip, knee, ankle) in enumerate(FEET):
        own = stands[:, side]
        near = np.convolve(own, np.ones(2 * ramp + 1), "same")[: len(own)] > 0.5
        known = own | ~near
        shift = np.where(own[:, None], places[:, side] - path - poses[:, ankle], 0)
        shift = (
            np.stack([np.interp(times, times[known], axis[known]) for axis in shift.T], -1) if known.any() else shift
        )
        found[:, knee], found[:, ankle] = _reaching(*(poses[:, j] for j in (hip, knee, ankle)), shift, stretch)
    return found


def _reaching(
    hip: np.ndarray, knee: np.ndarray, ankle: np.ndarray, shift: np.ndarray, stretch: float
) -> tuple[np.ndarray, np.ndarray]:
    """Knee and ankle [T, 3] of a leg that points to ``ankle + shift``, and is ``stretch`` of the way as long."""
    thigh, shin = (np.linalg.norm(a - b, axis=-1, keepdims=True) for a, b in ((knee, hip), (ankle, knee)))
    line = ankle + shift - hip
    long = np.linalg.norm(line, axis=-1, keepdims=True)
    was = np.linalg.norm(ankle - hip, axis=-1, keepdims=True)
    straight = np.maximum(thigh + shin - 1e-4, was)
    reach = np.clip(was + stretch * (long - was), np.abs(thigh - shin) + 1e-3, straight)
    line = line / np.maximum(long, 1e-9)
    along = (reach**2 + thigh**2 - shin**2) / np.maximum(2 * reach, 1e-9)
    bent = knee - hip
    bent = bent - (bent * line).sum(-1, keepdims=True) * line
    bent = bent / np.maximum(np.linalg.norm(bent, axis=-1, keepdims=True), 1e-9)
    return hip + along * line + np.sqrt(np.maximum(thigh**2 - along**2, 0)) * bent, hip + reach * line


def footholds_of(places: np.ndarray, still: np.ndarray, shortest: int = 2) -> np.ndarray:
    """[N, 3] metres: where a foot stood, once for each time that it stood.

    Args:
        places: [T, 2, 3], of ``steadied``. still: [T - 1, 2], of ``still_feet``. shortest: steps that a foot stands at
            least; one in the air may be still for a moment.
    """
    found = [np.median(places[a : b + 1, side], 0) for side in range(2) for a, b in stretches(still[:, side], shortest)]
    return np.array(found).reshape(-1, 3)
