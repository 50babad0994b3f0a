"""A registry on this host: it refuses in the ways that registries have, or serves one small image."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar"
CONFIG_TYPE = "application/vnd.docker.container.image.v1+json"

Answer = tuple[int, str, bytes]


class Registry:
    """Serves on a free port of 127.0.0.1, which an engine accepts without TLS; a context manager."""

    def __init__(self) -> None:
        self.refusal: Answer | None = None
        self._served: dict[str, Answer] = {}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.answer(self)

            def do_HEAD(self) -> None:
                registry.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.address = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Registry:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def refuse(self, status: int, code: str, message: str) -> None:
        """From now on answer every question for an image so."""
        body = json.dumps({"errors": [{"code": code, "message": message, "detail": None}]}).encode()
        self.refusal = (status, "application/json", body)

    def serve(self, name: str, layer: bytes, architecture: str) -> str:
        """Offer an image of one layer; returns its reference."""
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
        config_blob = json.dumps(config).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": self._blob(name, config_blob, CONFIG_TYPE),
            "layers": [self._blob(name, layer, LAYER_TYPE)],
        }
        body = json.dumps(manifest).encode()
        for reference in ("1.0", _digest(body)):
            self._served[f"/v2/{name}/manifests/{reference}"] = (200, MANIFEST_TYPE, body)
        return f"{self.address}/{name}:1.0"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        ok, unknown = (200, "application/json", b"{}"), (404, "application/json", b"{}")
        refusal = self.refusal or unknown
        # Only a registry that wants credentials refuses the first question already.
        default = ok if request.path == "/v2/" and refusal[0] != 401 else refusal
        status, kind, body = self._served.get(request.path, default)
        request.send_response(status)
        if status == 401:
            request.send_header("WWW-Authenticate", 'Basic realm="a registry"')
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.send_header("Docker-Content-Digest", _digest(body))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)

    def _blob(self, name: str, data: bytes, kind: str) -> dict[str, object]:
        self._served[f"/v2/{name}/blobs/{_digest(data)}"] = (200, "application/octet-stream", data)
        return {"mediaType": kind, "size": len(data), "digest": _digest(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
