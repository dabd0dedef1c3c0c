"""200 poses that fit one picture, as a cloud: python examples/hypotheses_cloud.py runs/ws/best.pt cloud.html

The run is one of ``python -m train.h36m --model ws_anl --lifter htnet --out runs/ws``.
"""

import sys

import torch

from posekernels import models
from posekernels.people import pictures
from posekernels.pose.hypotheses import median_pose, spread
from posekernels.pose.skeleton import H36M_17
from posekernels.train.data.motion import load_starter

if len(sys.argv) != 3:
    sys.exit(__doc__)
weights, out = sys.argv[1:]

net = models.load(weights)
clip = load_starter().test[0]
keypoints = torch.from_numpy(clip.keypoints[:1])  # [B = 1, J, 2], normalised screen units
with torch.no_grad():
    poses = net(keypoints, samples=200)  # [B, S, J, 3] metres, the root at 0

print(f"joints lie {1000 * spread(poses).mean():.0f} mm apart in the mean over 200 poses")
best = median_pose(poses)[0].numpy()  # [J, 3]
cloud = pictures.to_world(poses[0].numpy(), clip.orientation)  # z up
middle = pictures.to_world(best[None], clip.orientation)
panel = pictures.Panel("the median of 200", middle, H36M_17, hypotheses=cloud[None])
pictures.save(out, [panel], fps=1)
print(f"wrote {out}")
