"""Applying: from a video or keypoints to people in one world, and to what they do next."""

from posekernels.door import one_package

one_package(__name__)
