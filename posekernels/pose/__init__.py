"""The geometry of poses: skeletons, cameras, keypoints, metrics."""
