"""Podman's monitor of a container (conmon), kept out of the operator's figures.

Podman puts it in a group beside the container's, below the parent that it is given (libpod/oci_conmon_linux.go), unless
its settings say `cgroups = "no-conmon"`. There it would be counted with the operator: it copies the log, and at the end
it starts a whole podman that uses 0.1 s of CPU and some 40 MB. So it is moved to a group of cpost's own as soon as it
shows up, which is before the operator's first instruction.
"""

from __future__ import annotations

import threading

from cpost.measure.cgroup import Group

_LOOK_S = 0.001


class MonitorWatch:
    """A context manager around a container's start: moves the monitor when it shows up.

    Args:
        parent: the group above the container's.
        aside: where the monitor is moved to; it exists already.

    Attributes:
        counted: at the end, whether a monitor could not be moved and is counted with the operator.
    """

    def __init__(self, parent: Group, aside: Group) -> None:
        self._parent = parent
        self._aside = aside
        self.counted = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="cpost-monitor", daemon=True)

    def __enter__(self) -> MonitorWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        # To the end of the start: it enters one hierarchy after the other.
        while not self._over.wait(_LOOK_S):
            apart = [monitor.move_processes(self._aside) for monitor in self._parent.monitors()]
            self.counted = not all(apart)
