"""Builds the test images from this folder and the host's busybox, without any registry; only when they have changed.

    cpost-test:<digest>        /bin/appetite (see appetite.c) and busybox with all its applets
    cpost-test:<digest>-bare   /bin/appetite alone: no shell
    cpost-test:<digest>-entry  like the first, with an entrypoint: `/bin/appetite`
    cpost-test:<digest>-user   like the first, run as user 1234

Run as a script, it prints the name of the first.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

import docker
from docker.errors import ImageNotFound

REPOSITORY = "cpost-test"
BUSYBOX = Path("/bin/busybox")
HERE = Path(__file__).parent

VARIANTS = {
    "": [],
    "-bare": [],
    "-entry": ['ENTRYPOINT ["/bin/appetite"]'],
    "-user": ["USER 1234"],
}


def ensure_images(client: docker.DockerClient) -> str:
    """Build what is missing; return the name of the plain image, to which a variant's suffix can be added."""
    image = f"{REPOSITORY}:{_digest()}"
    missing = [suffix for suffix in VARIANTS if not _present(client, image + suffix)]
    if missing:
        program = compile_appetite()
        for suffix in missing:
            _import(client, image + suffix, root_archive(program, shell=suffix != "-bare"), VARIANTS[suffix])
    return image


def root_archive(program: bytes, *, shell: bool) -> bytes:
    """Return a tar archive with an image's root folder: the same bytes for the same content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for folder, mode in {"bin": 0o755, "etc": 0o755, "tmp": 0o1777}.items():
            _add(archive, folder, tarfile.DIRTYPE, mode=mode)
        _add(archive, "etc/passwd", data=b"root:x:0:0:root:/:/bin/sh\n", mode=0o644)
        _add(archive, "bin/appetite", data=program)
        if shell:
            _add(archive, "bin/busybox", data=BUSYBOX.read_bytes())
            for applet in _applets():
                _add(archive, f"bin/{applet}", tarfile.SYMTYPE, link="busybox")
    return buffer.getvalue()


def _digest() -> str:
    sources = (HERE / "appetite.c", Path(__file__), BUSYBOX)
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def _present(client: docker.DockerClient, image: str) -> bool:
    try:
        client.images.get(image)
    except ImageNotFound:
        return False
    return True


def compile_appetite() -> bytes:
    """The program of known appetites, linked statically."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "appetite"
        source = HERE / "appetite.c"
        subprocess.run(["gcc", "-static", "-O1", "-pthread", "-s", "-o", program, source], check=True)
        return program.read_bytes()


def _applets() -> list[str]:
    listing = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True)
    return [name for name in listing.stdout.split() if name != "busybox"]


def _add(
    archive: tarfile.TarFile,
    name: str,
    kind: bytes = tarfile.REGTYPE,
    *,
    mode: int = 0o755,
    data: bytes = b"",
    link: str = "",
) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(data), link
    archive.addfile(entry, io.BytesIO(data))


def _import(client: docker.DockerClient, image: str, root: bytes, changes: list[str]) -> None:
    repository, _, tag = image.partition(":")
    settings = ["ENV PATH=/bin", "LABEL cpost-test=image", *changes]
    answer = client.api.import_image_from_data(root, changes=settings)
    # Tagged apart: Podman's import takes a repository, but no tag.
    client.api.tag(json.loads(answer.splitlines()[-1])["status"], repository, tag)


if __name__ == "__main__":
    engine = docker.from_env()
    print(ensure_images(engine))
    engine.close()
