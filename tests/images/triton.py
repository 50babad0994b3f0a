"""The Triton image of the tests, and what operators in the test image ask its server with.

Run as a script (python -m tests.images.triton, in the repository's folder), it downloads what the image needs, builds
it, and prints its name. The models are in the folder `models`: each multiplies FP32 values, `IN` to `OUT`, some with a
vice of their own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import docker

from scripts import python_image, triton_image

CACHE = Path(__file__).parent.parent / ".cache"
MODELS = Path(__file__).with_name("models")


def ensure_triton_image(client: docker.DockerClient) -> str:
    """Build the image if it is missing; return its name."""
    packages = CACHE / "packages"
    mark = triton_image.prepare(CACHE, python_image.install(packages, ["numpy"]))
    image = f"cpost-test-triton:{mark[:12]}"
    triton_image.ensure(client, image, mark, CACHE, packages)
    return image


def infer(model: str, *values: float, count: int = 1) -> list[str]:
    """Return the command with which an operator in the test image asks a model `count` times, and prints each answer.

    It fails with the first request that fails.
    """
    tensor = {"name": "IN", "shape": [len(values)], "datatype": "FP32", "data": values}
    body = json.dumps({"inputs": [tensor]})
    url = f"http://$NVIDIA_TRITON_HTTPURI/v2/models/{model}/infer"
    return ["sh", "-ec", f"for i in $(seq {count}); do wget -q -O - --post-data '{body}' {url}; echo; done"]


if __name__ == "__main__":
    try:
        engine = docker.from_env(timeout=600)
        print(ensure_triton_image(engine))
        engine.close()
    except python_image.ImageError as error:
        print(f"cpost tests: {error}", file=sys.stderr)
        sys.exit(5)
