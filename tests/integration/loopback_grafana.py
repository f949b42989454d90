"""A Grafana's HTTP API on loopback as far as provisioning uses it: it keeps what it is sent, adds
what a Grafana adds, and takes no body that the published models would refuse."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from jsonschema import Draft202012Validator

_DATA = Path(os.environ.get("SHOPREEL_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
_BODIES = {
    ("POST", "/api/folders"): "create_folder",
    ("POST", "/api/datasources"): "add_data_source",
    ("POST", "/api/dashboards/db"): "save_dashboard",
    ("POST", "/api/v1/provisioning/alert-rules"): "provision_alert_rule",
    ("PUT", "/api/v1/provisioning/alert-rules"): "provision_alert_rule",
}
TOKEN = "glsa_loopback"


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass
class LoopbackGrafana:
    """`failures` are answered instead: (method, start of the path) to the status."""

    prefix: str = ""
    url: str = ""
    folders: dict[str, Any] = field(default_factory=dict)
    data_sources: dict[str, Any] = field(default_factory=dict)
    dashboards: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, Any] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    failures: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def writes(self) -> list[Request]:
        return [request for request in self.requests if request.method != "GET"]

    def answer(self, request: Request) -> tuple[int, Any]:
        self.requests.append(request)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, {"message": "Unauthorized"}
        for (method, start), status in self.failures.items():
            if method == request.method and request.path.startswith(start):
                return status, {"message": f"told to answer {status}"}
        if problems := _problems(request):
            return 400, {"message": f"bad request data: {problems}"}
        match request.path.removeprefix("/api/").split("/"):
            case ["folders", *uid]:
                return self._folder(request, uid)
            case ["datasources", *uid]:
                return self._data_source(request, uid[1:])
            case ["dashboards", "uid", uid]:
                return _found(self.dashboards, uid)
            case ["dashboards", "db"]:
                return self._save_dashboard(request.body)
            case ["v1", "provisioning", "alert-rules", *uid]:
                return self._rule(request, uid)
        return 404, {"message": "Not found"}

    def _folder(self, request: Request, uid: list[str]) -> tuple[int, Any]:
        if request.method == "POST":
            if any(there["title"] == request.body["title"] for there in self.folders.values()):
                return 409, {"message": "a folder with the same name already exists"}
            self.folders[request.body["uid"]] = {**request.body, "id": 1, "version": 1}
        elif request.method == "PUT":
            there = self.folders[uid[0]]
            if request.body.get("version") != there["version"]:
                return 412, {"message": "changed by someone else", "status": "version-mismatch"}
            there.update(request.body, version=there["version"] + 1)
        return _found(self.folders, *(uid or [request.body["uid"]]))

    def _data_source(self, request: Request, uid: list[str]) -> tuple[int, Any]:
        if request.method == "POST":
            if any(there["name"] == request.body["name"] for there in self.data_sources.values()):
                return 409, {"message": "data source with the same name already exists"}
            added = {"id": 1, "orgId": 1, "isDefault": False, "basicAuth": False, "version": 1}
            self.data_sources[request.body["uid"]] = {**added, **request.body}
        elif request.method == "PUT":
            self.data_sources[uid[0]] = request.body
        return _found(self.data_sources, *(uid or [request.body["uid"]]))

    def _save_dashboard(self, body: Any) -> tuple[int, Any]:
        sent, uid = body["dashboard"], body["dashboard"]["uid"]
        version = 0
        if there := self.dashboards.get(uid):
            version = there["dashboard"]["version"]
            if not body["overwrite"] and sent.get("version") != version:
                return 412, {"message": "changed by someone else", "status": "version-mismatch"}
        # Newer Grafanas migrate what they store, and panels get what their plugin adds.
        kept = {**sent, "id": 7, "version": version + 1, "schemaVersion": 42}
        kept["panels"] = [{**panel, "pluginVersion": "12.0.0"} for panel in sent["panels"]]
        self.dashboards[uid] = {"dashboard": kept, "meta": {"folderUid": body["folderUid"]}}
        return 200, {"id": 7, "uid": uid, "status": "success", "version": version + 1}

    def _rule(self, request: Request, uid: list[str]) -> tuple[int, Any]:
        body = request.body
        if request.method == "POST":
            if body["uid"] in self.rules:
                return 409, {"message": "a rule with this uid already exists"}
            self.rules[body["uid"]] = {"isPaused": False, "provenance": "", **body, "id": 3}
            return 201, self.rules[body["uid"]]
        if request.method == "PUT" and uid[0] in self.rules:
            self.rules[uid[0]] = {"isPaused": False, "provenance": "", **body, "id": 3}
        return _found(self.rules, uid[0])


@contextmanager
def loopback_grafana(prefix: str = "") -> Iterator[LoopbackGrafana]:
    """Answers while the context lasts; `prefix` is the path behind which it stands."""
    grafana = LoopbackGrafana(prefix)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body in one packet, or Nagle holds the body back for 40 ms

        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            path = self.path.removeprefix(prefix)
            status, said = grafana.answer(Request(self.command, path, headers, body))
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=UTF-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        grafana.url = f"http://127.0.0.1:{server.server_port}{prefix}"
        yield grafana
        server.shutdown()


def _problems(request: Request) -> list[str]:
    path = request.path
    if request.method == "PUT":
        path = path.rpartition("/")[0]
    model = _BODIES.get((request.method, path))
    if model is None:
        return []
    file = _DATA / "grafana_requests.schema.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: name the folder that holds Grafana's request models by SHOPREEL_TEST_DATA"
        )
    schema = json.loads(file.read_text())["$defs"][model]
    return [
        f"{e.json_path}: {e.message}"
        for e in Draft202012Validator(schema).iter_errors(request.body)
    ]


def _found(there: Mapping[str, Any], uid: str) -> tuple[int, Any]:
    return (200, there[uid]) if uid in there else (404, {"message": f"{uid} not found"})
