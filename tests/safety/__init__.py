"""Nothing is lost: kills, faults, two writers, bad disks."""
