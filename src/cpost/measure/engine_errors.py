"""What failures of the engine and of registries mean, and what to do about each."""

from __future__ import annotations

import re

from cpost.errors import HostError
from cpost.terminal import visible

FREE_ENGINE_DISK = "free space on the engine's disk (docker system df tells what is used), then start again"


_LOOK_THERE = "see whether it runs there (docker version), and what DOCKER_HOST says"


def printable(text: str) -> str:
    """A line of a stranger's, made safe for a terminal."""
    return visible(text.rstrip("\r").replace("\t", "    "))


def no_engine(address: str, error: Exception) -> HostError:
    """Why nothing answers at this address."""
    text = str(error)
    message = f"no Docker engine answers at {address}"
    if "PermissionError" in text or "Permission denied" in text:
        return HostError(
            f"{message}: you may not use its socket",
            "add yourself to its group (sudo usermod -aG docker $USER, then log in again), or start cpost with sudo",
        )
    if "FileNotFoundError" in text or "No such file" in text:
        hint = "install and start Docker (Debian, Ubuntu: sudo apt-get install docker.io), or set DOCKER_HOST"
        return HostError(f"{message}: there is no such socket", f"{hint}; `cpost exec -- COMMAND` needs none")
    if "refused" in text:
        local = address.startswith("unix:")
        start = "start it: sudo systemctl start docker"
        return HostError(f"{message}: the connection was refused", start if local else _LOOK_THERE)
    if "paramiko" in text:
        forward = "ssh -NL /tmp/engine.sock:/var/run/docker.sock HOST, and DOCKER_HOST=unix:///tmp/engine.sock"
        return HostError(f"{message}: cpost does not speak SSH", f"forward its socket: {forward}")
    return HostError(f"{message}: {_reason(text)}", _LOOK_THERE)


def _reason(text: str) -> str:
    """What the system said, of all that the libraries between wrap around it."""
    said = re.search(r"\[Errno -?\d+\] ([^'\")]+)", text)
    return said[1] if said else printable(text.removeprefix("Error while fetching server API version: "))


def pull_failed(reference: str, reason: str) -> HostError:
    """Why an image could not be pulled.

    Args:
        reason: the engine's or the registry's own words.
    """
    registry = (
        reference.split("/")[0] if "/" in reference and re.search(r"[.:]|^localhost$", reference.split("/")[0]) else ""
    )
    message = f"cannot pull image {reference}: {printable(reason)}"
    if "no space left" in reason:
        return HostError(message, FREE_ENGINE_DISK)
    if re.search(r"no basic auth|unauthorized|denied|forbidden|authentication", reason, re.IGNORECASE):
        return HostError(
            message, f"log in to its registry (docker login {registry}".rstrip() + "), and check the name and tag"
        )
    if re.search(r"manifest unknown|not found", reason, re.IGNORECASE):
        return HostError(
            message,
            f"check the name and tag; a private image needs `docker login {registry}".rstrip() + "` first",
        )
    if re.search(r"toomanyrequests|429", reason, re.IGNORECASE):
        return HostError(message, f"wait, or log in for a higher limit (docker login {registry}".rstrip() + ")")
    return HostError(
        message,
        "check the name and tag, and whether the registry can be reached from here; if it wants a log-in: "
        + f"docker login {registry}".rstrip()
        + "; or build or load the image locally",
    )
