"""Needs more memory than it may have, for the first request already."""

import numpy as np

STEP_BYTES, MOST_BYTES = 10_000_000, 4_000_000_000  # so that no host is harmed


class TritonPythonModel:
    def execute(self, requests: list) -> list:
        kept = [np.ones(STEP_BYTES, np.uint8) for _ in range(MOST_BYTES // STEP_BYTES)]
        raise MemoryError(f"{len(kept)} steps, and nobody minds")
