"""The web page in real Chromium against a real cluster, as a merchandiser uses it."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from serve.client import ServiceError
from tests.integration.browser import SHOTS, Tab, chromium
from tests.integration.live import LiveCluster, write_config

PRODUCTS = Path(__file__).parents[2] / "examples" / "products"
GRAFANA = "https://grafana.example/d/shopreel"
WATCH, VASE = PRODUCTS / "watch-steel.jpg", PRODUCTS / "home-vase.webp"

pytestmark = pytest.mark.timeout(240)

Open = Callable[..., Tab]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """One of its own: all other tests go without the page."""
    folder = tmp_path_factory.mktemp("web")
    config = write_config(folder / "config.yaml", **{"web.grafana_url": GRAFANA})
    with LiveCluster(folder / "data", config, page=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def open_tab(browser: Browser, live: LiveCluster) -> Iterator[Open]:
    with contextlib.ExitStack() as ends:

        def open_tab(path: str = "/ui/en/", width: int = 1280) -> Tab:
            tab = Tab(browser, live.url, path, width)
            ends.callback(tab.close)
            expect(tab.page.locator("#start")).to_be_enabled()
            expect(tab.page.get_by_label("Standard", exact=True)).to_be_checked()
            return tab

        yield open_tab


def make(tab: Tab, *photos: Path, steps: int = 10, **more: Any) -> None:
    """Fill in the form and start."""
    tab.add(*photos)
    tab.page.get_by_label("Product title").fill("Steel watch")
    expect(tab.page.get_by_label("What should happen")).to_have_value(re.compile("watch"))
    tab.page.get_by_role("button", name="More settings").click()
    for label, value in {"Steps": steps, "Frames": 8, **more}.items():
        field = tab.page.get_by_role("spinbutton", name=label, exact=True)
        field.fill(str(value))
        field.blur()
    tab.click("Make the video")
    expect(tab.jobs()).not_to_have_count(0)


def choose(tab: Tab, label: str, option: str) -> None:
    """Of a drop-down list."""
    tab.page.get_by_label(label, exact=True).click()
    tab.page.get_by_role("option", name=option, exact=True).click()


def the_video(tab: Tab) -> dict[str, Any]:
    """What the page's one <video> is playing."""
    video = tab.jobs("completed").locator("video").first
    expect(video).to_be_visible()
    video.scroll_into_view_if_needed()  # Chromium plays no muted video that is out of sight
    tab.page.wait_for_function(
        "() => { const v = document.querySelector('article.job video');"
        " return v && v.readyState >= 2 && v.currentTime > 0 && v.duration > 0 }"
    )
    read: dict[str, Any] = video.evaluate(
        "v => ({seconds: v.duration, width: v.videoWidth, height: v.videoHeight,"
        " paused: v.paused, error: v.error})"
    )
    return read


def test_a_photo_becomes_a_video_that_plays_and_is_downloaded(
    open_tab: Open, live: LiveCluster
) -> None:
    tab = open_tab()
    tab.shoot("create-empty")
    make(tab, WATCH, steps=60, Seed=11)
    expect(tab.jobs().first).to_be_in_viewport()
    bar = tab.page.locator("article.job progress")
    seen = []
    with contextlib.suppress(AssertionError):
        for _ in range(200):
            if tab.jobs("completed").count():
                break
            if bar.count():
                seen.append(int(bar.first.get_attribute("value", timeout=2_000) or 0))
                if len(seen) == 8:
                    tab.shoot("create-progress")
            tab.page.wait_for_timeout(150)
    assert max(seen) > min(seen), "progress was not seen to rise"

    assert seen == sorted(seen)
    shown = the_video(tab)
    video_id = tab.jobs("completed").get_attribute("data-video")
    assert video_id is not None
    assert video_id in tab.page.url
    with live.client() as client:
        video, content = client.get(video_id), client.content(video_id)
    assert (video["seed"], video["num_frames"], video["steps"]) == (11, 8, 60)
    assert f"{shown['width']}x{shown['height']}" == video["size"]
    assert shown["seconds"] == pytest.approx(float(video["seconds"]), abs=0.1)
    assert (shown["paused"], shown["error"]) == (False, None)
    with tab.page.expect_download() as download:
        tab.page.get_by_role("link", name="Download").click()
    assert download.value.path().read_bytes() == content
    tab.page.get_by_text("Details").click()
    tab.shoot("create-done")

    tab.click("Good")
    expect(tab.page.get_by_text("Thank you for the rating")).to_be_visible()
    with live.client() as client:
        assert client.get(video_id)["feedback"]["rating"] == 1
    tab.click("Again with another seed")
    expect(tab.jobs()).to_have_count(2)
    expect(tab.jobs("completed")).to_have_count(2)
    repeated = tab.jobs("completed").first.get_attribute("data-video")
    assert repeated not in (None, video_id)
    with live.client() as client:
        twin = client.get(str(repeated))
    assert twin["seed"] != video["seed"]
    same = ("prompt", "num_frames", "steps", "size", "preset", "metadata")
    assert {name: twin[name] for name in same} == {name: video[name] for name in same}
    assert tab.outside == set()


def test_a_job_is_cancelled_and_a_reload_loses_nothing(open_tab: Open, live: LiveCluster) -> None:
    tab = open_tab()
    make(tab, WATCH, steps=200)
    video_id = tab.jobs().get_attribute("data-video")
    assert video_id is not None
    tab.page.reload()
    expect(tab.jobs()).to_have_attribute("data-video", video_id)
    tab.click("Cancel")
    expect(tab.jobs("cancelled")).to_have_count(1)
    with live.client() as client:
        assert client.get(video_id)["status"] == "cancelled"
    tab.shoot("create-cancelled")


def test_candidates_stand_side_by_side_with_their_scores(open_tab: Open) -> None:
    tab = open_tab()
    slider = tab.page.get_by_role("slider")
    slider.focus()
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    make(tab, VASE)
    expect(tab.page.locator("figure[data-candidate] video")).to_have_count(3)
    expect(tab.page.locator("figure[data-candidate] mark")).to_have_count(1)
    scores = tab.page.locator("figcaption").all_inner_texts()
    assert sum(bool(re.search(r"score [01]\.\d\d", score)) for score in scores) == 3
    the_video(tab)
    tab.shoot("create-candidates")


def test_a_bad_photo_is_told_in_words_and_keeps_no_other_from_being_made(
    open_tab: Open, tmp_path: Path
) -> None:
    bad = tmp_path / "broken.jpg"
    bad.write_bytes(WATCH.read_bytes()[:2000])
    tab = open_tab()
    make(tab, bad, WATCH)
    alert = tab.page.get_by_role("alert").filter(has_text="broken.jpg")
    expect(alert).to_contain_text("The photo is damaged or cut short.")
    expect(alert).to_contain_text("original file")
    expect(tab.jobs("completed")).to_have_count(1)
    tab.shoot("create-bad-photo")


def test_two_tabs_do_not_mix(open_tab: Open) -> None:
    one, other = open_tab(), open_tab()
    make(one, WATCH, Seed=21)
    make(other, VASE, Seed=22)
    expect(one.jobs("completed")).to_have_count(1)
    expect(other.jobs("completed")).to_have_count(1)
    assert "watch-steel" in one.jobs().inner_text()
    assert "home-vase" in other.jobs().inner_text()


def test_what_serves_the_page_may_die_in_mid_job(open_tab: Open, live: LiveCluster) -> None:
    """The replicas of page and API; that jobs survive the whole head is tests/faults' matter."""
    tab = open_tab()
    make(tab, WATCH, steps=150, Seed=31)
    victims = [live.replica("WebPage"), live.replica("VideoAPI")]
    for victim in victims:
        victim.kill()
    psutil.wait_procs(victims, timeout=10)
    expect(tab.jobs("completed")).to_have_count(1, timeout=120_000)
    the_video(tab)


def test_chinese_words_and_a_phone(open_tab: Open) -> None:
    tab = open_tab()
    tab.page.get_by_role("link", name="中文").click()
    expect(tab.page.get_by_role("button", name="制作视频")).to_be_visible()
    assert tab.page.evaluate("document.documentElement.lang") == "zh-CN"
    tab.page.get_by_label("商品标题").fill("机械表")
    expect(tab.page.get_by_label("画面描述")).to_have_value(re.compile("watch"))
    tab.page.set_viewport_size({"width": 390, "height": 844})
    for name in ("制作视频", "我的视频", "批量制作", "服务状态"):
        tab.page.get_by_role("tab", name=name).click()
        expect(tab.page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
        wide = tab.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, f"{name}: a phone would scroll sideways"
        tab.shoot(f"phone-{name}")


def test_the_gallery_shows_filters_repeats_and_deletes(open_tab: Open, live: LiveCluster) -> None:
    tab = open_tab()
    make(tab, VASE, Seed=41)
    expect(tab.jobs("completed")).to_have_count(1)
    video_id = str(tab.jobs("completed").get_attribute("data-video"))
    tab.page.get_by_role("tab", name="My videos").click()
    shelf = tab.page.locator("#shelf")
    mine = shelf.locator(f'figure[data-video="{video_id}"]')
    expect(mine.locator("img")).to_be_visible()
    poster = mine.locator("img")
    assert poster.evaluate("i => [i.loading, i.complete && i.naturalWidth > 0]") == ["lazy", True]
    newest = shelf.locator("figure").first
    expect(newest).to_have_attribute("data-video", video_id)
    tab.shoot("gallery")
    choose(tab, "Status", "Cancelled")
    expect(mine).to_have_count(0)
    choose(tab, "Status", "All")
    expect(mine).to_have_count(1)
    mine.get_by_role("link", name="Again with other settings").click()
    expect(tab.page.get_by_text("Photo: home-vase.webp")).to_be_visible()
    expect(tab.page.get_by_label("What should happen")).to_have_value(re.compile("watch"))
    tab.page.get_by_role("button", name="More settings").click()
    expect(tab.page.get_by_role("spinbutton", name="Frames", exact=True)).to_have_value("8")
    tab.page.get_by_role("spinbutton", name="Frames", exact=True).fill("10")
    tab.click("Make the video")
    expect(tab.jobs("completed")).to_have_count(1)
    with live.client() as client:
        changed = client.get(str(tab.jobs("completed").get_attribute("data-video")))
    assert (changed["num_frames"], changed["metadata"]["page_name"]) == (10, VASE.name)

    tab.page.get_by_role("tab", name="My videos").click()
    mine.get_by_role("button", name="Again with another seed").click()
    expect(newest).not_to_have_attribute("data-video", changed["id"])
    tab.page.once("dialog", lambda dialog: dialog.accept())
    mine.get_by_role("button", name="Delete").click()
    expect(mine).to_have_count(0)
    with live.client() as client, pytest.raises(ServiceError, match="video_not_found"):
        client.get(video_id)
    assert tab.outside == set()


def test_a_camera_move_is_rendered_and_one_begins_a_generated_clip(
    open_tab: Open, live: LiveCluster
) -> None:
    tab = open_tab()
    tab.add(WATCH)
    tab.page.get_by_label("Product title").fill("Steel watch")
    expect(tab.page.get_by_label("What should happen")).to_have_value(re.compile("watch"))
    expect(tab.page.get_by_role("slider")).to_have_count(1)  # candidates; the rest is folded
    tab.page.get_by_label("Camera move, nothing generated").check()
    expect(tab.page.get_by_role("slider")).to_have_count(0)  # they mean nothing to it
    choose(tab, "Camera", "Pan left")
    tab.page.get_by_label("Preview", exact=True).check()
    tab.shoot("create-camera")
    tab.click("Make the video")
    expect(tab.jobs("completed")).to_have_count(1)
    expect(tab.page.get_by_text("nothing was generated")).to_be_visible()
    the_video(tab)
    video_id = str(tab.jobs("completed").get_attribute("data-video"))
    with live.client() as client:
        rendered = client.get(video_id)
    assert (rendered["model"], rendered["camera_motion"]["move"]) == ("camera", "pan_left")
    assert rendered["usage"]["unet_steps"] == 0
    tab.shoot("create-camera-done")

    tab.page.get_by_label("Generated motion").check()
    tab.page.get_by_role("button", name="More settings").click()
    tab.page.get_by_role("spinbutton", name="Steps", exact=True).fill("10")
    tab.click("Make the video")
    expect(tab.jobs("completed")).to_have_count(2)
    with live.client() as client:
        begun = client.get(str(tab.jobs("completed").first.get_attribute("data-video")))
    assert (begun["camera_motion"]["move"], begun["steps"]) == ("pan_left", 4)
    assert begun["motion_strength"] == 0.4


def test_a_list_of_five_is_checked_made_watched_and_reported(
    open_tab: Open, live: LiveCluster, tmp_path: Path
) -> None:
    tab = open_tab()
    tab.page.get_by_role("tab", name="Catalogue").click()
    tab.click("Check the list")
    expect(tab.page.get_by_text("Add a product list first.")).to_be_visible()
    add_list(tab, tmp_path / "winter.csv")
    choose(tab, "Category of rows that name none", "Watch")
    tab.click("Check the list")
    run = tab.page.locator("#run article")
    expect(run).to_contain_text("Checked: 5 products, 1 cannot be used")
    problems = tab.page.locator("#problems tbody tr")
    expect(problems).to_have_count(1)
    expect(problems).to_contain_text("The number of versions cannot be used as it stands.")
    tab.shoot("catalogue-checked")
    checked = str(run.get_attribute("data-run"))
    run.get_by_role("button", name="Make the videos of this list").click()
    expect(run).not_to_have_attribute("data-run", checked)
    expect(run).to_have_attribute("data-status", "in_progress")
    expect(run.locator("progress")).to_be_visible()
    tab.shoot("catalogue-progress")
    tab.page.reload()  # the run is in the address
    expect(run).to_contain_text("winter.csv")
    expect(run).to_have_attribute("data-status", "completed", timeout=120_000)
    expect(run).to_contain_text("Done: 4 of 5 ready, 1 failed")
    expect(problems).to_have_count(1)
    expect(problems).to_contain_text("vase-4")
    ready = tab.page.locator('#rows figure[data-status="ok"]')
    expect(ready).to_have_count(4)
    expect(ready.first.locator("img")).to_be_visible()
    tab.shoot("catalogue-report")
    batch_id = str(run.get_attribute("data-run"))
    with httpx2.Client(base_url=live.url) as http:
        items = http.get(f"/v1/batches/{batch_id}/items").json()["data"]
    assert [one["status"] for one in items] == ["ok"] * 4 + ["failed"]
    with tab.context.expect_page() as opened:
        run.get_by_role("link", name="Open the report").click()
    read_report(opened.value)
    choose(tab, "Show", "Failed")
    expect(tab.page.locator("#rows figure")).to_have_count(1)
    choose(tab, "Show", "All")
    run.get_by_role("button", name="Make the failed ones again").click()
    expect(run).not_to_have_attribute("data-run", batch_id)
    expect(run).to_have_attribute("data-status", "completed")
    expect(run).to_contain_text("Done: 4 of 5 ready, 1 failed")
    again = str(run.get_attribute("data-run"))
    with httpx2.Client(base_url=f"{live.url}/v1/batches") as http:
        first, second = (http.get(f"/{one}").json() for one in (batch_id, again))
    assert second["run_id"] == first["run_id"]
    assert (first["retry_failed"], second["retry_failed"]) == (False, True)
    ready.first.get_by_role("link").click()
    the_video(tab)
    assert str(items[0]["video_id"]) in tab.page.url
    assert tab.outside == set()


def test_a_run_is_stopped(open_tab: Open, live: LiveCluster, tmp_path: Path) -> None:
    tab = open_tab()
    tab.page.get_by_role("tab", name="Catalogue").click()
    add_list(tab, tmp_path / "spring.csv")
    choose(tab, "Category of rows that name none", "Home")
    tab.click("Make all videos")
    run = tab.page.locator("#run article")
    tab.page.once("dialog", lambda dialog: dialog.accept())
    run.get_by_role("button", name="Stop the run").click()
    expect(run).to_have_attribute("data-status", "cancelled", timeout=120_000)
    expect(run).to_contain_text("Stopped by you")
    with httpx2.Client(base_url=live.url) as http:
        batch = http.get(f"/v1/batches/{run.get_attribute('data-run')}").json()
    assert batch["status"] == "cancelled"


def test_the_service_view_tells_machines_failures_and_the_way_to_grafana(
    open_tab: Open, live: LiveCluster
) -> None:
    with live.client() as client:
        late = client.create(WATCH, prompt="a watch turns", sku="late", deadline_s=0.5)
        made = client.create(VASE, prompt="a vase turns", num_inference_steps=2, num_frames=8)
        assert client.wait(made["id"], lambda _: None)["status"] == "completed"
        assert client.wait(late["id"], lambda _: None)["status"] == "failed"
    tab = open_tab()
    tab.page.get_by_role("tab", name="Service").click()
    expect(tab.page.get_by_text("The service is ready.")).to_be_visible()
    cpu = tab.page.locator('#machines tr[data-tier="cpu"]')
    at_work = cpu.locator('[data-column="at_work"]')
    expect(at_work).to_have_text("0 (room for 4)")
    expect(cpu.locator('[data-column="replicas"]')).to_have_text("1")
    expect(cpu.locator('[data-column="speed"]')).to_contain_text("TFLOP/s")
    expect(cpu.locator('[data-column="memory"]')).to_have_text("–")  # it has no card
    expect(tab.page.locator('#machines tr[data-tier="camera"]')).to_contain_text("camera moves")
    expect(tab.page.locator('#service [data-line="interactive"]')).to_have_text("0")
    failure = tab.page.locator(f'#service [data-video="{late["id"]}"]')
    expect(failure).to_contain_text("The time allowed for the video ran out.")
    expect(failure).to_contain_text("Make it again, with more time.")
    expect(tab.page.locator("#models tbody tr")).to_have_count(2)
    link = tab.page.get_by_role("link", name="Open the dashboards in Grafana")
    expect(link).to_have_attribute("href", GRAFANA)
    tab.shoot("service")
    assert tab.outside == set()


def read_report(report: Page) -> None:
    """In the tab that it was opened in: it looks as it does from a disk, and its links hold."""
    expect(report.get_by_role("heading", level=1)).to_have_text("Complete")
    poster = report.locator("figure img").first
    assert poster.evaluate("i => i.complete && i.naturalWidth > 0")
    assert (
        report.locator("section").first.evaluate("s => getComputedStyle(s).borderRadius") != "0px"
    )
    report.screenshot(path=SHOTS / "catalogue-report-file.png", full_page=True)
    with report.expect_download() as download:
        report.get_by_role("link", name="errors.csv").click()
    assert "vase-4" in download.value.path().read_text("utf-8-sig")
    report.locator("a.still").first.click()
    expect(report).to_have_url(re.compile(r"/ui/batches/batch_[0-9a-f]+/videos/00000/.+\.mp4$"))
    report.wait_for_function("() => document.querySelector('video').videoWidth > 0")
    report.close()


def add_list(tab: Tab, path: Path) -> None:
    """Five products over two photos; the last one cannot be used."""
    rows = [f"watch-{number},{WATCH.name},preview,{number},1" for number in range(3)]
    rows += [f"vase-3,{VASE.name},preview,3,1", f"vase-4,{VASE.name},preview,4,101"]
    path.write_text("\n".join(["sku,image_uri,preset,seed,n", *rows]))
    tab.page.locator("#manifest input[type=file]").set_input_files(path)
    expect(tab.page.locator("#manifest .file-preview td.filename")).to_have_count(1)
    tab.page.locator("#list-photos input[type=file]").set_input_files([WATCH, VASE])
    expect(tab.page.locator("#list-photos .file-preview td.filename")).to_have_count(2)
