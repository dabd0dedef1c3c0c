"""Poses as the camera sees them, a few frames late: python examples/webcam.py 0

The number is that of the camera; a video's name works too. Ctrl-C ends it.
"""

import sys
import time

from posekernels.people import detect
from posekernels.people.lifter import in_h36m, load_lifter
from posekernels.people.live import Live
from posekernels.people.tracking import Track, Tracker
from posekernels.people.video import Video
from posekernels.pose.angles import knee_angles

LATENCY = 5  # frames after which a pose comes

if len(sys.argv) != 2:
    sys.exit(__doc__)
video, find, tracker, lifter = Video(sys.argv[1]), detect.BlazePose(people=1), Tracker(), load_lifter()
live = Live(lifter, LATENCY, bridge=round(video.fps / 2), size=video.size, focal=None, fps=video.fps, smooth=True)
shown, start = 0, time.perf_counter()
for frame, image in enumerate(video, 1):
    seen = find(image)  # who is there, in pixels
    people = []
    for number, sighting in zip(tracker.add(seen), seen):
        track = in_h36m(Track(number, sighting.points[None], sighting.scores[None]), find.layout, lifter.net.sees)
        people.append((number, track.points[0], track.scores[0]))
    live.push(people)
    rate = frame / (time.perf_counter() - start)
    for row in live.poses[shown:]:  # finished since the last image; LATENCY frames old
        pose = row["pose"]  # [17, 3] metres, camera axes, the root at 0
        print(f"frame {row['frame'] + 1}: left knee {knee_angles(pose)[1]:.0f} degrees, {rate:.0f} frames/s")
    shown = len(live.poses)
