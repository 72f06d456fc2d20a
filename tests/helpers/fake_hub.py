"""A small Hugging Face Hub on the loopback interface: repositories that huggingface_hub can write and read."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(ThreadingHTTPServer):
    """``files``: contents by ``owner/name/path``; ``requests``: what was asked; ``refuse``: answer all with 403."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.refuse = False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path)
        if self.server.refuse:
            return self._answer(403, b"no")
        if listed := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/.*", self.path):
            names = (name.removeprefix(f"{listed[1]}/") for name in self.server.files if name.startswith(listed[1]))
            return self._json([{"type": "file", "path": name, "size": 1, "oid": "0"} for name in names])
        if found is None or f"{found[1]}/{found[2]}" not in self.server.files:
            return self._answer(404, b"", {"X-Error-Code": "EntryNotFound" if found else "RepoNotFound"})
        content = self.server.files[f"{found[1]}/{found[2]}"]
        digest = hashlib.sha256(content).hexdigest()
        return self._answer(
            200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        )

    def do_PUT(self) -> None:
        self.server.objects[self.path.rpartition("/")[2]] = self._body()
        self._answer(200, b"")

    def do_POST(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        body = self._body()
        if self.server.refuse:
            return self._answer(403, b"no")
        if self.path == "/api/repos/create":
            name = json.loads(body)
            return self._json({"url": f"{self.server.address}/{name.get('organization')}/{name['name']}"})
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            return self._json({"files": [self._kind(file) for file in json.loads(body)["files"]]})
        if self.path.endswith("/info/lfs/objects/batch"):
            return self._json({"transfer": "basic", "objects": [self._target(o) for o in json.loads(body)["objects"]]})
        if "/commit/" in self.path:
            return self._commit(self.path.split("/")[3:5], [json.loads(line) for line in body.splitlines()])
        return self._answer(404, b"")

    @staticmethod
    def _kind(file: dict[str, Any]) -> dict[str, Any]:
        large = file["path"].endswith(".safetensors")
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def _target(self, entry: dict[str, Any]) -> dict[str, Any]:
        upload = {"upload": {"href": f"{self.server.address}/objects/{entry['oid']}", "header": {}}}
        return {"oid": entry["oid"], "size": entry["size"], "authenticated": True, "actions": upload}

    def _commit(self, repository: list[str], lines: list[dict[str, Any]]) -> None:
        for line in lines:
            value, place = line["value"], "/".join([*repository, line["value"].get("path", "")])
            if line["key"] == "file":
                self.server.files[place] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[place] = self.server.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del self.server.files[place]
        address = f"{self.server.address}/{'/'.join(repository)}/commit/{COMMIT}"
        self._json({"success": True, "commitOid": COMMIT, "commitUrl": address, "hookOutput": ""})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self, data: Any) -> None:
        self._answer(200, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
