"""Integration tests once more, elsewhere: with control groups v2 in a virtual machine, and on Podman."""
