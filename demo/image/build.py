"""Builds the demo's images without a registry: one for the operators, one with the Triton server for the models.

Usage: python -m demo.image.build   (in the repository's folder, with the Python of cpost's virtual environment; prints
nothing when there is nothing to do)
"""

import sys
from pathlib import Path
from typing import NoReturn

import docker
from docker.errors import DockerException

from scripts import python_image, triton_image
from scripts.python_image import ImageError

DEMO = Path(__file__).resolve().parent.parent
CACHE = DEMO / ".cache"
PACKAGES = CACHE / "packages"
REQUIREMENTS = DEMO / "requirements.txt"
OPERATORS, TRITON = "cpost-demo:1", "cpost-demo-triton:1"


def ensure_operators(client: docker.DockerClient, packages_mark: str) -> None:
    """Make the operators' image unless the engine has it: this Python, the packages and the operators."""
    programs = sorted((DEMO / "operators").glob("*.py"))
    mark = python_image.mark_of(packages_mark, *(path.read_text() for path in programs))
    if python_image.is_made(client, OPERATORS, mark):
        return
    files = python_image.with_libraries(python_image.python_files(PACKAGES), PACKAGES)
    files |= {Path("/operators", path.name): path for path in programs}
    python_image.make(client, OPERATORS, mark, files, ["WORKDIR /operators", 'CMD ["python3"]'])


def fail(problem: object) -> NoReturn:
    """Say what is wrong and what to do, and end."""
    print(f"cpost demo: {problem}", file=sys.stderr)
    sys.exit(5)


def main() -> None:
    """Install the packages and build the images, each only if something changed."""
    lines = (line.partition("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines())
    try:
        packages_mark = python_image.install(PACKAGES, [line for line in lines if line])
        triton_mark = triton_image.prepare(CACHE, packages_mark)
        client = docker.from_env(timeout=600)
        ensure_operators(client, packages_mark)
        triton_image.ensure(client, TRITON, triton_mark, CACHE, PACKAGES)
    except ImageError as error:
        fail(error)
    except DockerException as error:
        remedy = "see that the disk has 2 GB free, then start again"
        fail(ImageError(f"the Docker engine did not take an image: {error}", remedy))


if __name__ == "__main__":
    main()
