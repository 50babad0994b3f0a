"""Finds the ventricles: evens the brightness out, then grows a region from bright seeds deep in the brain.

In: the smoothed volume, how deep each voxel lies in the brain (0 outside) and the size of voxels. Out: 1 where the
ventricles may be, in one or more parts.
"""

import json

import numpy as np
from scipy import ndimage
from triton_arrays import give, take

INPUTS = ("SMOOTH", "DEPTH", "VOXEL_MM")
COARSE = 4


def flatten(smooth: np.ndarray, brain: np.ndarray, voxel: float) -> np.ndarray:
    """Divide by the brightness of the wider neighbourhood, which the receiving coils make uneven."""
    step = (slice(None, None, COARSE),) * 3
    inside = brain[step].astype(np.float32)
    sigma = 20 / voxel / COARSE
    wide = ndimage.gaussian_filter(smooth[step] * inside, sigma) / (ndimage.gaussian_filter(inside, sigma) + 1e-3)
    wide = ndimage.affine_transform(wide, np.eye(3) / COARSE, output_shape=smooth.shape, order=1, mode="nearest")
    return smooth / np.maximum(wide, 1)


class TritonPythonModel:
    """What the server loads."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the model's parameters."""
        parameters = json.loads(args["model_config"])["parameters"]
        self.settings = {name: float(value["string_value"]) for name, value in parameters.items()}

    def execute(self, requests: list) -> list:
        """Answer each request."""
        return [give(VENTRICLES=self.find(*(take(request, name) for name in INPUTS))) for request in requests]

    def find(self, smooth: np.ndarray, depth: np.ndarray, voxel: np.ndarray) -> np.ndarray:
        """Grow a region from bright seeds deep in the brain."""
        flat = flatten(smooth, depth > 0, float(voxel[0]))
        reach = (flat > self.settings["GROW_RATIO"]) & (depth > self.settings["MIN_DEPTH_MM"])
        reach = ndimage.binary_opening(reach)
        seeds = reach & (flat > self.settings["SEED_RATIO"]) & (depth > self.settings["SEED_DEPTH_MM"])
        print(
            f"growing from {np.count_nonzero(seeds)} seeds in a reach of {np.count_nonzero(reach)} voxels", flush=True
        )
        return ndimage.binary_propagation(seeds, mask=reach).astype(np.uint8)
