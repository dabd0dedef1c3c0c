"""What people do next, against what they did: python examples/forecast_people.py people.npz next.html"""

import sys

import numpy as np

from posekernels import people
from posekernels.people import player, pose_files

if len(sys.argv) != 3:
    sys.exit(__doc__)
lifted = pose_files.read(sys.argv[1])  # posekernels lift -o people.npz
now = lifted.frames / lifted.fps - 0.5
ahead = people.forecast(lifted, 0.5, at=now)  # half a second that is known, too

for person in ahead.people:
    done = next(p for p in lifted.people if p.identity == person.identity).over("world", lifted.frames)
    may, known = person.over("world", ahead.frames), done[ahead.now : ahead.frames]
    off = np.linalg.norm(may[ahead.now : ahead.now + len(known)] - known, axis=-1).mean(-1)
    still = np.linalg.norm(known - may[ahead.now - 1], axis=-1).mean(-1)
    print(f"person {person.identity}, {len(known) / lifted.fps:.1f} s ahead: {1000 * off[-1]:.0f} mm off")
    print(f"  (standing still: {1000 * still[-1]:.0f} mm)")

player.write(sys.argv[2], player.film_of(ahead, now=ahead.now))
print(f"wrote {sys.argv[2]}")
