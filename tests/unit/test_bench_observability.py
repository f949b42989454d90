"""The tools of `make bench PART=observability`: emissions counted or left out, log lines sorted."""

import json
from pathlib import Path

import pytest

from benchmarks.observability.log_volume import added, sizes
from benchmarks.observability.switch import Mode, Switch, meter


@pytest.mark.parametrize(
    ("mode", "handed_on", "counted"),
    [(Mode.SHIPPED, 3, 0), (Mode.MUTED, 0, 0), (Mode.COUNTED, 3, 3)],
)
def test_emissions_are_handed_on_left_out_or_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Mode, handed_on: int, counted: int
) -> None:
    monkeypatch.setenv("BENCH_EMISSIONS", "")  # put back afterwards
    switch, told = Switch(tmp_path / "emissions"), list[float]()
    emit = meter()(told.append)
    switch.turn(mode)
    for value in (1.0, 2.0, 3.0):
        emit(value)
    assert len(told) == handed_on
    assert switch.emitted().calls == counted
    assert (switch.emitted().cpu_s > 0) is (counted > 0)


def test_only_new_lines_count_and_by_whose_they_are(tmp_path: Path) -> None:
    logs = tmp_path / "ray-temp" / "session_latest" / "logs"
    (logs / "serve").mkdir(parents=True)
    ours = logs / "serve" / "replica_shopreel_Decoder_x1.log"
    daemon = logs / "python-core-worker-0af3_12.log"
    ours.write_text(json.dumps({"event": "old", "logger": "deployments", "level": "info"}) + "\n")
    before = sizes(tmp_path)
    lines = [
        {"event": "decoding", "logger": "monitoring.stages", "level": "info"},
        {"event": "slow", "logger": "deployments.decoder", "level": "warning"},
        {"event": "deployed", "logger": "ray.serve", "level": "info"},
    ]
    with ours.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    daemon.write_text("[I] a line\n")
    found = added(tmp_path, before)
    assert found.lines == {
        "ours, INFO": 1,
        "ours, WARNING": 1,
        "Serve's in our files, INFO": 1,
        "Ray's, python-core-worker": 1,
    }
    assert found.figures(2)["all"]["lines"] == 2
    assert found.lines_of_ours(1) == {"decoding": 1, "slow": 1}
    assert sum(found.bytes.values()) == sum(sizes(tmp_path).values()) - before[ours.resolve()]
