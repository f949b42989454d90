"""A run's report by HTTP: what is given, to whom, and what it may do in a browser."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog.results.row import RowStatus
from storage.object_store import ObjectStoreConfig
from tests.integration.batch_desk import Desk, drive
from tests.integration.service import error_of


@pytest.fixture
def desk(s3: ObjectStoreConfig, tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(s3, tmp_path, max_upload_bytes=1000)
    with desk.service.http:
        yield desk


def file_of(desk: Desk, batch: dict[str, Any], name: str = "report", **kwargs: Any) -> Any:
    return desk.ask("GET", f"/batches/{batch['id']}/{name}", **kwargs)


def test_a_report_is_given_as_the_run_wrote_it(desk: Desk) -> None:
    made = desk.create()
    drive(desk, made, [RowStatus.OK, RowStatus.FAILED])
    output = desk.output(made)
    report, errors = file_of(desk, made), file_of(desk, made, "errors.csv")
    assert report.content == desk.objects.get(output.key("report.html"))
    assert report.headers["content-type"] == "text/html; charset=utf-8"
    assert errors.content == desk.objects.get(output.key("errors.csv"))
    assert errors.headers["content-type"] == "text/csv; charset=utf-8"
    assert errors.headers["content-disposition"].startswith("attachment;")
    for answer in (report, errors):
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_no_script_runs_in_a_report_whoever_wrote_it(desk: Desk) -> None:
    made = desk.create()
    drive(desk, made, [RowStatus.OK])
    rules = file_of(desk, made).headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in rules
    (sandbox,) = (rule for rule in rules if rule.startswith("sandbox"))
    assert "allow-scripts" not in sandbox
    assert not [rule for rule in rules if rule.startswith(("script-src", "connect-src"))]


def test_a_report_is_sent_again_once_it_has_changed(desk: Desk) -> None:
    made = desk.create()
    drive(desk, made, [RowStatus.OK])
    etag = file_of(desk, made).headers["etag"]
    same = file_of(desk, made, headers={"If-None-Match": etag})
    assert (same.status_code, same.content) == (304, b"")
    part = file_of(desk, made, headers={"Range": "bytes=1-8", "If-Range": etag})
    assert (part.status_code, part.content) == (206, b"!doctype")
    desk.objects.put(desk.output(made).key("report.html"), b"<p>anew", "text/html")
    changed = file_of(desk, made, headers={"If-None-Match": etag})
    assert (changed.status_code, changed.content) == (200, b"<p>anew")
    head = desk.ask("HEAD", f"/batches/{made['id']}/report")
    assert (head.content, head.headers["content-length"]) == (b"", "7")


def test_what_a_report_links_to_is_found_beside_it(desk: Desk) -> None:
    made = desk.create()
    drive(desk, made, [RowStatus.OK, RowStatus.FAILED])
    links = set(re.findall(r'href="\./([^"]+)"', file_of(desk, made).text))
    assert links == {"errors.csv", "videos/0.mp4"}
    clip = "videos/00000/p0-0.mp4"  # as runs name them; the desk's have no folder
    desk.objects.put(desk.output(made).key(clip), b"0123456789", "application/octet-stream")
    video = file_of(desk, made, clip, headers={"Range": "bytes=2-4"})
    assert (video.status_code, video.content) == (206, b"234")
    assert video.headers["content-type"] == "video/mp4"
    missing = file_of(desk, made, "videos/00000/p1-1.mp4")
    assert (missing.status_code, error_of(missing)["code"]) == (404, "content_not_found")
    other = file_of(desk, made, "videos/00000/p1.parquet")
    assert (other.status_code, error_of(other)["code"]) == (400, "invalid_parameter")


@pytest.mark.parametrize("name", ["report", "errors.csv"])
def test_a_run_without_a_report_says_whether_one_will_come(desk: Desk, name: str) -> None:
    made = desk.create()
    early = file_of(desk, made, name)
    assert (early.status_code, error_of(early)["code"]) == (409, "report_not_ready")
    desk.ask("POST", f"/batches/{made['id']}/cancel")
    desk.look()
    never = file_of(desk, made, name)
    assert (never.status_code, error_of(never)["code"]) == (404, "report_not_found")
    dry = file_of(desk, desk.create(dry_run=True), name)
    assert (dry.status_code, error_of(dry)["code"]) == (404, "report_not_found")


def test_a_report_of_another_tenant_is_not_there(desk: Desk) -> None:
    made = desk.create()
    drive(desk, made, [RowStatus.OK])
    desk.objects.put(desk.output(made).key("videos/00000/a-0.mp4"), b"mp4", "video/mp4")
    for name in ("report", "errors.csv", "videos/00000/a-0.mp4"):
        assert file_of(desk, made, name).status_code == 200
        answer = file_of(desk, made, name, tenant="rival")
        assert (answer.status_code, error_of(answer)["code"]) == (404, "batch_not_found")
