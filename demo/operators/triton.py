"""Asks a model of a Triton inference server: the v2 protocol over HTTP, with arrays as they are in memory."""

import http.client
import json
import os
import sys

import numpy as np

TYPES = {"FP32": np.dtype(np.float32), "UINT8": np.dtype(np.uint8)}
NAMES = {dtype: name for name, dtype in TYPES.items()}
HEAD_SIZE = "Inference-Header-Content-Length"


def infer(model: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Send arrays to a model, and return those it answers with; without an answer end the operator."""
    arrays = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
    tensors = [describe(name, array) for name, array in arrays.items()]
    head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}})
    size = len(head) + sum(array.nbytes for array in arrays.values())
    headers = {"Content-Length": str(size), HEAD_SIZE: str(len(head))}
    server = http.client.HTTPConnection(os.environ["NVIDIA_TRITON_HTTPURI"])
    try:
        server.request("POST", f"/v2/models/{model}/infer", [head.encode(), *map(memoryview, arrays.values())], headers)
        response = server.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        sys.exit(f"the Triton server is gone: {error}")
    if response.status != http.client.OK:
        sys.exit(f"the model {model} failed: {body.decode(errors='replace')}")
    return unpack(body, int(response.headers[HEAD_SIZE]))


def describe(name: str, array: np.ndarray) -> dict[str, object]:
    """Announce an array whose bytes follow."""
    own = {"binary_data_size": array.nbytes}
    return {"name": name, "shape": array.shape, "datatype": NAMES[array.dtype], "parameters": own}


def unpack(body: bytes, start: int) -> dict[str, np.ndarray]:
    """Return the arrays of an answer: their description is JSON, their bytes follow it in the same order."""
    found = {}
    for tensor in json.loads(body[:start])["outputs"]:
        dtype, shape = TYPES[tensor["datatype"]], tensor["shape"]
        found[tensor["name"]] = np.frombuffer(body, dtype, np.prod(shape, dtype=int), start).reshape(shape)
        start += found[tensor["name"]].nbytes
    return found
