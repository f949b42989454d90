"""The web page in real Chromium against a real cluster, as a merchandiser uses it."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from serve.client import ServiceError
from tests.integration.browser import (
    SHOTS,
    Tab,
    choose,
    chromium,
    make,
    seen_progress,
    the_video,
    watch_progress,
)
from tests.integration.live import LiveCluster, write_config

PRODUCTS = Path(__file__).parents[2] / "examples" / "products"
GRAFANA = "https://grafana.example/d/shopreel"
WATCH, VASE = PRODUCTS / "watch-steel.jpg", PRODUCTS / "home-vase.webp"

pytestmark = pytest.mark.timeout(240)

_LEFT = re.compile(r"about \d+ (s|min) left")
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


def test_a_photo_becomes_a_video_that_plays_and_is_downloaded(
    open_tab: Open, live: LiveCluster
) -> None:
    tab = open_tab()
    tab.shoot("create-empty")
    watch_progress(tab)
    make(tab, WATCH, steps=200, Seed=11)
    expect(tab.jobs().first).to_be_in_viewport()
    expect(tab.page.get_by_text(re.compile(r"step \d+ of 200"))).to_be_visible()
    tab.shoot("create-progress")
    shown = the_video(tab)
    values, words = seen_progress(tab)
    assert values == sorted(values)
    assert len(set(values)) > 1, f"progress was not seen to rise: {values}"
    assert any("step" in said for said in words), set(words)

    video_id = tab.jobs("completed").get_attribute("data-video")
    assert video_id is not None
    assert video_id in tab.page.url
    with live.client() as client:
        video, content = client.get(video_id), client.content(video_id)
    assert (video["seed"], video["num_frames"], video["steps"]) == (11, 8, 200)
    assert f"{shown['width']}x{shown['height']}" == video["size"]
    assert video["size"] in tab.page.locator("#form figure").inner_text().replace("×", "x")
    assert shown["seconds"] == pytest.approx(float(video["seconds"]), abs=0.1)
    assert (shown["paused"], shown["error"]) == (False, None)
    with tab.page.expect_download() as download:
        tab.page.get_by_role("link", name="Download").click()
    assert download.value.path().read_bytes() == content
    tab.page.get_by_text("Details").click()
    facts = tab.jobs("completed").locator("dl")
    for said in (video["prompt"], video["size"].replace("x", " × "), "11", "Standard", video_id):
        expect(facts.get_by_text(said, exact=True)).to_be_visible()
    tab.shoot("create-done")

    tab.click("Good")
    expect(tab.page.get_by_text("Thank you for the rating")).to_be_visible()
    with live.client() as client:
        assert client.get(video_id)["feedback"]["rating"] == 1
    tab.click("Again with another seed")
    expect(tab.jobs()).to_have_count(2)
    twin_id = str(tab.jobs().first.get_attribute("data-video"))
    expect(tab.page.get_by_text(_LEFT)).to_be_visible()  # known, now that one has been made
    tab.click("Cancel")
    expect(tab.jobs("cancelled")).to_have_count(1)
    with live.client() as client:
        twin = client.get(twin_id)
    assert (twin["seed"] != video["seed"], twin_id != video_id) == (True, True)
    same = ("prompt", "num_frames", "steps", "size", "preset", "metadata")
    assert {name: twin[name] for name in same} == {name: video[name] for name in same}
    assert tab.outside == set()


def test_neither_a_reload_nor_a_lost_connection_loses_a_job_that_can_be_cancelled_and_retried(
    open_tab: Open, live: LiveCluster
) -> None:
    tab = open_tab()
    make(tab, WATCH, steps=200)
    video_id = tab.jobs().get_attribute("data-video")
    assert video_id is not None
    bar = tab.page.locator("article.job progress")
    with tab.page.expect_event("requestfailed"):
        tab.context.set_offline(True)
    before = bar.evaluate("bar => bar.value")
    tab.shoot("create-offline")
    tab.context.set_offline(False)
    tab.page.wait_for_function(  # goes on by itself
        "before => document.querySelector('article.job progress')?.value > before", arg=before
    )
    tab.page.reload()
    expect(tab.jobs()).to_have_attribute("data-video", video_id)
    tab.click("Cancel")
    expect(tab.jobs("cancelled")).to_have_count(1)
    with live.client() as client:
        cancelled = client.get(video_id)
    assert cancelled["status"] == "cancelled"
    tab.shoot("create-cancelled")

    tab.click("Try again")
    expect(tab.jobs()).to_have_count(2)
    with live.client() as client:
        retried = client.get(str(tab.jobs().first.get_attribute("data-video")))
    assert (retried["prompt"], retried["steps"]) == (cancelled["prompt"], 200)
    tab.click("Cancel")
    expect(tab.jobs("cancelled")).to_have_count(2)


def test_candidates_stand_side_by_side_with_their_scores(open_tab: Open) -> None:
    tab = open_tab()
    slider = tab.page.get_by_role("slider")
    slider.focus()
    for _ in range(2):
        slider.press("ArrowRight")
    expect(slider).to_have_value("3")
    make(tab, VASE)
    expect(tab.page.locator("figure[data-candidate] video")).to_have_count(3)
    expect(tab.page.locator("figure[data-candidate] mark")).to_have_count(1)
    scores = tab.page.locator("figcaption").all_inner_texts()
    assert sum(bool(re.search(r"score [01]\.\d\d", score)) for score in scores) == 3
    the_video(tab)
    tab.page.wait_for_function(
        "() => [...document.querySelectorAll('article.job video')].every(v => v.currentTime > 0)"
    )
    tab.shoot("create-candidates")


def test_every_photo_becomes_a_video_and_a_bad_one_is_told_in_words(
    open_tab: Open, live: LiveCluster, tmp_path: Path
) -> None:
    bad = tmp_path / "broken.jpg"
    bad.write_bytes(WATCH.read_bytes()[:2000])
    tab = open_tab()
    make(tab, bad, WATCH, VASE)
    alert = tab.page.get_by_role("alert").filter(has_text="broken.jpg")
    expect(alert).to_contain_text("The photo is damaged or cut short.")
    expect(alert).to_contain_text("original file")
    expect(tab.jobs("completed")).to_have_count(2)
    the_video(tab)
    tab.shoot("create-bad-photo")
    ids = [one.get_attribute("data-video") for one in tab.jobs("completed").all()]
    with live.client() as client:
        photos = [client.get(str(one))["metadata"]["page_name"] for one in ids]
    assert photos == [VASE.name, WATCH.name]


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
    make(tab, WATCH, steps=120, Seed=31)
    victims = [live.replica("WebPage"), live.replica("VideoAPI")]
    for victim in victims:
        victim.kill()
    psutil.wait_procs(victims, timeout=10)
    expect(tab.jobs("completed")).to_have_count(1, timeout=120_000)
    the_video(tab)


def test_the_gallery_shows_filters_changes_repeats_and_deletes(
    open_tab: Open, live: LiveCluster
) -> None:
    tab = open_tab()
    choose(tab, "Category", "Home")
    make(tab, VASE, Seed=41, SKU="V-41")
    expect(tab.jobs("completed")).to_have_count(1)
    video_id = str(tab.jobs("completed").get_attribute("data-video"))
    tab.page.get_by_role("tab", name="My videos").click()
    shelf = tab.page.locator("#shelf")
    mine = shelf.locator(f'figure[data-video="{video_id}"]')
    poster = mine.locator("img")
    expect(poster).to_be_visible()
    expect(poster).to_have_js_property("complete", True)
    assert poster.evaluate("i => [i.loading, i.naturalWidth > 0]") == ["lazy", True]
    newest = shelf.locator("figure").first
    expect(newest).to_have_attribute("data-video", video_id)
    tab.shoot("gallery")
    for label, other, own in (("Status", "Cancelled", "Ready"), ("Category", "Watch", "Home")):
        choose(tab, label, other)
        expect(mine).to_have_count(0)
        choose(tab, label, own)
        expect(mine).to_have_count(1)
        choose(tab, label, "All")
    sku = tab.page.get_by_label("SKU", exact=True).locator("visible=true")
    sku.fill("V-4")
    sku.press("Enter")
    expect(shelf).to_contain_text("No videos here.")
    sku.fill("V-41")
    sku.press("Enter")
    expect(shelf.locator("figure")).to_have_count(1)
    mine.get_by_role("link", name="Again with other settings").click()
    expect(tab.page.get_by_text("Photo: home-vase.webp")).to_be_visible()
    expect(tab.page.get_by_label("What should happen")).to_have_value(re.compile("Steel watch"))
    tab.page.get_by_role("button", name="More settings").click()
    frames = tab.page.get_by_role("spinbutton", name="Frames", exact=True)
    expect(frames).to_have_value("8")
    frames.fill("10")
    frames.blur()
    tab.click("Make the video")
    expect(tab.jobs("completed")).to_have_count(1)
    with live.client() as client:
        changed = client.get(str(tab.jobs("completed").get_attribute("data-video")))
    assert (changed["num_frames"], changed["sku"], changed["category"]) == (10, "V-41", "home")
    assert changed["metadata"]["page_name"] == VASE.name

    tab.page.get_by_role("tab", name="My videos").click()
    expect(newest).to_have_attribute("data-video", changed["id"])
    mine.get_by_role("button", name="Again with another seed").click()
    expect(newest).not_to_have_attribute("data-video", changed["id"])
    expect(newest).to_have_attribute("data-status", "completed")  # without being asked again
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


def test_the_server_is_restarted_in_mid_job(open_tab: Open, live: LiveCluster) -> None:
    """The last one here: `shopreel up` ends and is started again, at the same address."""
    tab = open_tab()
    make(tab, WATCH, steps=200, Seed=32)
    video_id = str(tab.jobs().get_attribute("data-video"))
    expect(tab.page.locator('article.job[data-status="in_progress"]')).to_have_count(1)
    assert live.stop() == 0
    live.start()
    expect(tab.jobs("completed")).to_have_count(1, timeout=120_000)
    assert tab.jobs().get_attribute("data-video") == video_id
    the_video(tab)


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
