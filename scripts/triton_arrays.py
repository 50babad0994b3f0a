"""For models: the arrays of a request and of its response. A part of the Triton image.

They pass by DLPack, because the server's Python backend was built for numpy 1 and misreads the arrays of numpy 2.
"""

from __future__ import annotations

import ctypes

import numpy as np
import triton_python_backend_utils as triton

TAKEN = b"used_dltensor"


def take(request: triton.InferenceRequest, name: str) -> np.ndarray:
    """Return an input as an array."""
    return np.from_dlpack(triton.get_input_tensor_by_name(request, name))


def give(**outputs: np.ndarray) -> triton.InferenceResponse:
    """Return a response with these arrays as outputs."""
    return triton.InferenceResponse([_tensor(name, array) for name, array in outputs.items()])


def _tensor(name: str, array: np.ndarray) -> triton.Tensor:
    capsule = np.ascontiguousarray(array).__dlpack__()
    tensor = triton.Tensor.from_dlpack(name, capsule)
    # The backend marks it as taken with another name than DLPack's, and numpy would complain of that on stderr.
    ctypes.pythonapi.PyCapsule_SetName(ctypes.py_object(capsule), TAKEN)
    return tensor
