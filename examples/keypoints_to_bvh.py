"""2D keypoints of any program to a skeleton for Blender: python examples/keypoints_to_bvh.py keypoints.json walk.bvh

One file a person; bones keep their lengths, and feet that stand stay where they are.
"""

import sys

from posekernels import people
from posekernels.people import pose_files

if len(sys.argv) != 3:
    sys.exit(__doc__)
keypoints, out = sys.argv[1:]

lifted = people.lift(keypoints, fps=25)  # where the file does not say; size="1920x1080" if it does not say that either
for note in lifted.notes:
    print(note)
for path in pose_files.write(out, lifted):
    print(f"wrote {path}")
