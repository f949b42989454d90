"""`shopreel grafana push` against an HTTP server that answers as a Grafana does."""

import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from monitoring.dashboards import DASHBOARDS
from monitoring.dashboards.panel import DATA_SOURCE_UID
from monitoring.grafana import push
from monitoring.grafana.errors import GrafanaConflict, GrafanaUnreachable
from serve.cli import app
from tests.integration.loopback_grafana import TOKEN, LoopbackGrafana, loopback_grafana

PROMETHEUS = "http://prometheus.monitoring:9090"
BOARD = DASHBOARDS[0].uid
RULE = "shopreel-queueold"


@pytest.fixture
def grafana() -> Iterator[LoopbackGrafana]:
    with loopback_grafana() as running:
        yield running


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    return file


def run(grafana: LoopbackGrafana, token_file: Path, *more: str) -> Result:
    options = more if "--datasource" in more else ("--prometheus", PROMETHEUS, *more)
    to = ["--url", grafana.url, "--token-file", str(token_file)]
    done = CliRunner().invoke(app, ["grafana", "push", *to, *options])
    assert TOKEN not in done.output
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_the_first_push_creates_all_and_the_second_finds_nothing_to_do(
    grafana: LoopbackGrafana, token_file: Path
) -> None:
    first = run(grafana, token_file)
    assert first.exit_code == 0, first.output
    assert list(grafana.folders) == ["shopreel"]
    assert grafana.data_sources[DATA_SOURCE_UID]["url"] == PROMETHEUS
    assert list(grafana.dashboards) == [dashboard.uid for dashboard in DASHBOARDS]
    assert RULE in grafana.rules
    assert all(rule["folderUID"] == "shopreel" for rule in grafana.rules.values())
    made = 2 + len(grafana.dashboards) + len(grafana.rules)
    assert len(grafana.writes) == made
    assert f"{made} created, 0 updated, 0 kept" in first.output

    grafana.requests.clear()
    second = run(grafana, token_file)
    assert second.exit_code == 0
    assert grafana.writes == []
    assert len(grafana.requests) == made  # one look at each
    assert f"0 created, 0 updated, {made} kept" in second.output


def test_a_diff_shows_what_a_push_would_do_and_does_not_do_it(
    grafana: LoopbackGrafana, token_file: Path
) -> None:
    nothing_there = run(grafana, token_file, "--diff")
    assert nothing_there.exit_code == 3
    assert grafana.writes == []
    assert "Shopreel / Capacity" in nothing_there.output

    run(grafana, token_file)
    assert run(grafana, token_file, "--diff").exit_code == 0

    grafana.dashboards[BOARD]["dashboard"]["panels"][1]["title"] = "Mine"
    grafana.requests.clear()
    edited = run(grafana, token_file, "--diff")
    assert edited.exit_code == 3
    assert grafana.writes == []
    assert re.search(r'-\s+"title": "Mine"', edited.output)
    assert re.search(r'\+\s+"title": "API requests served"', edited.output)


def test_a_push_takes_back_what_people_changed_and_keeps_what_only_they_know(
    grafana: LoopbackGrafana, token_file: Path
) -> None:
    run(grafana, token_file)
    grafana.dashboards[BOARD]["dashboard"]["panels"].pop()
    grafana.folders["shopreel"]["title"] = "Videos"
    grafana.rules[RULE].update({"for": "1h", "isPaused": True})
    grafana.data_sources[DATA_SOURCE_UID].update(url="http://old", isDefault=True)
    grafana.data_sources[DATA_SOURCE_UID]["jsonData"]["tlsSkipVerify"] = True
    grafana.requests.clear()

    again = run(grafana, token_file)
    assert "0 created, 4 updated" in again.output
    assert len(grafana.writes) == 4
    assert grafana.folders["shopreel"]["title"] == "Shopreel"
    panels = DASHBOARDS[0].as_json()["panels"]
    assert len(grafana.dashboards[BOARD]["dashboard"]["panels"]) == len(panels)
    assert grafana.rules[RULE]["for"] == "5m"
    assert grafana.rules[RULE]["isPaused"] is True
    source = grafana.data_sources[DATA_SOURCE_UID]
    assert (source["url"], source["isDefault"]) == (PROMETHEUS, True)
    assert source["jsonData"]["tlsSkipVerify"] is True
    assert run(grafana, token_file, "--diff").exit_code == 0


def test_rules_can_be_paused_in_grafana(grafana: LoopbackGrafana, token_file: Path) -> None:
    run(grafana, token_file)
    rules = [request for request in grafana.writes if "alert-rules" in request.path]
    assert {request.headers["x-disable-provenance"] for request in rules} == {"true"}


def test_a_data_source_that_is_there_is_used_and_left_alone(
    grafana: LoopbackGrafana, token_file: Path
) -> None:
    assert run(grafana, token_file, "--datasource", "mimir").exit_code == 0
    assert grafana.data_sources == {}
    asked = {
        target["datasource"]["uid"]
        for board in grafana.dashboards.values()
        for panel in board["dashboard"]["panels"]
        for target in panel.get("targets", ())
    }
    assert asked == {"mimir"}
    sources = {step["datasourceUid"] for rule in grafana.rules.values() for step in rule["data"]}
    assert sources == {"mimir", "__expr__"}


def test_a_save_in_between_is_not_overwritten(grafana: LoopbackGrafana, token_file: Path) -> None:
    run(grafana, token_file)
    there = grafana.dashboards[BOARD]["dashboard"]
    there["title"] = "Mine"
    api = push.connect(grafana.url, TOKEN)
    changes = list(push.compare(push.everything(api, PROMETHEUS, None, "15s")))
    there["version"] += 1  # somebody saves
    (change,) = [change for change in changes if change.diff]
    with pytest.raises(GrafanaConflict, match=r"Shopreel / Overview.*push again"):
        change.make()
    assert grafana.dashboards[BOARD]["dashboard"]["title"] == "Mine"


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("GET", "/api/folders", 401, "token"),
        ("POST", "/api/folders", 403, "role Admin"),
        ("POST", "/api/folders", 409, "something else has this name"),
        ("POST", "/api/dashboards/db", 412, "push again"),
        ("POST", "/api/datasources", 500, "push again later"),
        ("POST", "/api/v1/provisioning/alert-rules", 400, "alert rule"),
        ("GET", "/api/dashboards", 502, "push again later"),
    ],
)
def test_a_refusal_ends_the_push_with_words_and_the_next_one_goes_on(
    grafana: LoopbackGrafana, token_file: Path, method: str, path: str, status: int, said: str
) -> None:
    grafana.failures[method, path] = status
    failed = run(grafana, token_file)
    assert failed.exit_code == 1
    assert said in failed.output
    assert str(status) in failed.output
    done = len(grafana.writes) - (method != "GET")

    grafana.failures.clear()
    grafana.requests.clear()
    assert run(grafana, token_file).exit_code == 0
    assert len(grafana.writes) == 2 + len(DASHBOARDS) + len(grafana.rules) - done


def test_a_wrong_token_is_told(grafana: LoopbackGrafana, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("glsa_other")
    done = run(grafana, wrong)
    assert done.exit_code == 1
    assert "401" in done.output
    assert "glsa_other" not in done.output
    assert len(grafana.requests) == 1


@pytest.mark.parametrize("content", [None, b"", b" \n", b"two tokens", b"\xff\xfe"])
def test_a_token_file_that_holds_no_token_asks_nobody(
    grafana: LoopbackGrafana, tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    done = run(grafana, file)
    assert done.exit_code == 1
    assert "token" in done.output
    assert grafana.requests == []


def test_grafana_may_stand_behind_a_path(token_file: Path) -> None:
    with loopback_grafana("/grafana") as grafana:
        assert run(grafana, token_file).exit_code == 0
        assert grafana.dashboards


@pytest.mark.parametrize("url", ["grafana.example.com", "ftp://grafana", "http://", "http://g?a=1"])
def test_a_strange_address_is_refused(token_file: Path, url: str) -> None:
    done = run(LoopbackGrafana(url=url), token_file)
    assert done.exit_code == 1
    assert "no address of a Grafana" in done.output


def test_nobody_there_is_told(token_file: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = run(LoopbackGrafana(url=url), token_file)
    assert done.exit_code == 1
    assert "look for folder Shopreel" in done.output


def test_a_server_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        api = push.connect(f"http://127.0.0.1:{silent.getsockname()[1]}", TOKEN)
        with pytest.raises(GrafanaUnreachable):
            list(push.compare(push.everything(api, None, "mimir", "15s")))


def test_exactly_one_way_to_a_data_source(grafana: LoopbackGrafana, token_file: Path) -> None:
    both = run(grafana, token_file, "--datasource", "mimir", "--prometheus", PROMETHEUS)
    assert both.exit_code == 2
    assert grafana.requests == []


def test_without_grafana_client_the_command_says_how_to_get_it(
    grafana: LoopbackGrafana, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("monitoring.grafana.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "grafana_client", None)
    done = run(grafana, token_file)
    assert done.exit_code == 1
    assert "URLLIB3_NO_OVERRIDE=1" in done.output
