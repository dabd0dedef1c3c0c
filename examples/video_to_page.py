"""People in a video, on a page that plays: python examples/video_to_page.py clip.mp4 clip.html"""

import sys
from pathlib import Path

from posekernels import people
from posekernels.people import player

if len(sys.argv) != 3:
    sys.exit(__doc__)
video, out = map(Path, sys.argv[1:])

lifted = people.lift(video, people=2)  # any option of posekernels lift
for person in lifted.people:
    root = person.world[person.present, 0]  # [T, 3] metres, z up
    print(f"person {person.identity}: {len(root)} frames, from {root[0].round(2)} to {root[-1].round(2)}")

player.write(out, player.film_of(lifted, video))
print(f"wrote {out}")
