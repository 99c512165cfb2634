"""What every package stands on: errors, devices, seeds, whole files, locks, threads, downloads, statistics."""
