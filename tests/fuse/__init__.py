"""The file edge, mostly on real mounts and loop devices."""
