"""The page in a real Chromium: charts are drawn, clicks and keys work, hostile names stay text."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from selenium.webdriver.common.keys import Keys

from batchemo.palette import as_hex, colours
from batchemo.records import EMOTIONS
from batchemo.report.page import readable_name
from batchemo.report.site import write_site
from tests.browser import Browser
from tests.made_media import read_pixels
from tests.made_results import FRAMES, HOSTILE, RATE, hostile_results

pytestmark = pytest.mark.needs("chromium")

LENGTH_S = FRAMES / RATE


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile_results(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(results: Path) -> str:
    return write_site(results).page.as_uri()


def open_medium(browser: Browser, page: str, name: str, rest: str = "") -> None:
    browser.open(f"{page}#medium={quote(readable_name(name), safe='')}{rest}")
    browser.wait("return document.querySelector('.track') !== null")


def names_shown(browser: Browser) -> list[str]:
    found: list[str] = browser.run("return [...document.querySelectorAll('.media tbody bdi')].map((name) => name.textContent)")
    return found


def choose(browser: Browser, label: str, value: str) -> None:
    """Sets a select or slider, and fires the events of a user's choice."""
    script = """
        const field = [...document.querySelectorAll("section:not([hidden]) .field")]
            .find((each) => each.textContent.startsWith(arguments[0]));
        const control = field.querySelector("input, select");
        control.value = arguments[1];
        control.dispatchEvent(new Event("input"));
        control.dispatchEvent(new Event("change"));
    """
    browser.run(script, label, value)


def test_overview(browser: Browser, page: str) -> None:
    browser.open(page)
    text = browser.run("return document.getElementById('overview').innerText")
    assert browser.run("return document.title") == "results & <b>more · batchemo"
    for part in (
        "Failed media",
        "is empty (0 bytes)",
        "nightly: 1 medium analysed",
        "Newly failed: <b>empty</b>.mp4",
        "Failed before, now done: angry.mp4",
        "Deleted or moved: g<o>ne.mp4",
        "Drift from earlier runs",
        "share of <i>angry</i> faces: 90%, usually 10% (5% to 15% in 9 runs)",
    ):
        assert part in text
    assert "AI Act, article 5(1)(f)" in browser.run("return document.querySelector('footer').innerText")
    assert set(names_shown(browser)) == {readable_name(name) for name in (*HOSTILE, "angry.mp4", "nobody.mp4", "<b>empty</b>.mp4")}
    assert browser.run("return document.querySelectorAll('main b, main i, main script, [onerror]').length") == 0
    browser.wait("return [...document.querySelectorAll('.face img')].some((image) => image.naturalWidth > 0)")
    fills = browser.run("return [...document.querySelectorAll('.strip rect')].map((each) => each.getAttribute('fill'))")
    assert {as_hex(colours(EMOTIONS)[EMOTIONS.index(name)]) for name in ("angry", "happy", "sad")} <= set(fills)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text_and_their_copies_are_shown(browser: Browser, page: str, name: str) -> None:
    browser.open(page)
    number = names_shown(browser).index(readable_name(name))
    browser.run("document.querySelectorAll('.media tbody a')[arguments[0]].click()", number)
    browser.wait("return document.querySelector('#medium h1')?.textContent === arguments[0]", readable_name(name))
    assert browser.run("return document.title") == f"{readable_name(name)} · batchemo"
    assert browser.run("return document.querySelectorAll('#medium :is(script, [onerror])').length") == 0
    loaded = "return document.querySelector('.holder video')?.readyState >= 1 || document.querySelector('.holder img')?.naturalWidth > 0"
    browser.wait(loaded)
    browser.wait("return document.querySelectorAll('.track').length === 2")
    browser.run("history.back()")
    browser.wait("return document.getElementById('medium').hidden")


def test_charts_are_drawn_in_the_colours_of_the_emotions(browser: Browser, page: str, tmp_path: Path) -> None:
    open_medium(browser, page, HOSTILE[0])
    script = """
        const canvas = document.querySelector(".chart canvas");
        const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        const found = {};
        for (let i = 0; i < pixels.length; i += 4) {
          const key = pixels.slice(i, i + 4).join();
          found[key] = (found[key] ?? 0) + 1;
        }
        return found;
    """
    drawn = browser.run(script)
    for name in ("happy", "sad"):
        red, green, blue = colours(EMOTIONS)[EMOTIONS.index(name)]
        # Half of the band of 20 pixels, and of the line of two.
        assert drawn[f"{red},{green},{blue},255"] > 2000, name
    browser.save_screenshot(tmp_path / "page.png")
    assert len(np.unique(read_pixels(tmp_path / "page.png").reshape(-1, 3), axis=0)) > 200


def test_a_click_on_the_timeline_seeks_the_video(browser: Browser, page: str) -> None:
    open_medium(browser, page, HOSTILE[0])
    browser.wait("return document.querySelector('video').readyState >= 1")
    width = browser.run("return document.querySelector('.chart').clientWidth")
    plot = width - 50
    browser.click(".chart", x=round(38 + 0.75 * plot - width / 2))
    browser.wait("const video = document.querySelector('video'); return !video.seeking && video.currentTime > 0")
    assert browser.run("return document.querySelector('video').currentTime") == pytest.approx(0.75 * LENGTH_S, abs=0.05)
    assert "sad" in browser.run("return document.querySelector('.chart').getAttribute('aria-valuetext')")
    browser.click(".track:nth-of-type(1) .portrait")
    browser.wait("return document.querySelector('video').currentTime < 1")


def test_the_keyboard_moves_along_frames_and_plays(browser: Browser, page: str) -> None:
    open_medium(browser, page, HOSTILE[0], "&t=1")
    browser.wait("return document.querySelector('video').readyState >= 1")
    browser.run("document.querySelector('.chart').focus()")
    now = "return Number(document.querySelector('video').currentTime.toFixed(3))"
    settled = "return !document.querySelector('video').seeking"
    left, right = Keys.ARROW_LEFT, Keys.ARROW_RIGHT
    for key, frames in ((right, 31), (right, 32), (left, 31), (left, 30), (left, 29)):
        browser.press(key)
        browser.wait(settled)
        assert browser.run(now) == pytest.approx(frames / RATE, abs=0.005)
    browser.press(Keys.END)
    assert browser.run(now) == pytest.approx(LENGTH_S - 1 / RATE, abs=0.005)
    assert "sad" in browser.run("return document.activeElement.getAttribute('aria-valuetext')")
    browser.run("document.querySelector('video').currentTime = 0")
    browser.press(" ")
    browser.wait("return !document.querySelector('video').paused && document.querySelector('video').currentTime > 0.05")
    browser.press(" ")
    browser.wait("return document.querySelector('video').paused")


def test_everything_is_reached_by_tab_and_enter(browser: Browser, page: str) -> None:
    browser.open(page)
    reached = set()
    for _ in range(40):
        browser.press(Keys.TAB)
        reached.add(browser.run("const at = document.activeElement; return at.tagName + (at.type ?? '')"))
        if browser.run("return document.activeElement.closest('.media') !== null"):
            break
    assert {"BUTTONbutton", "INPUTsearch", "INPUTrange", "SELECTselect-one", "A"} <= reached
    browser.press(Keys.ENTER)
    browser.wait("return !document.getElementById('medium').hidden && document.activeElement.matches('#medium h1')")


def test_filters(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.click(".chip:nth-child(1)")
    assert names_shown(browser) == ["angry.mp4"]
    assert browser.run("return document.querySelector('[role=status]').textContent") == "1 of 9 media"
    browser.click(".chip:nth-child(1)")
    browser.click(".chip:nth-child(5)")
    shown = browser.run("return [...document.querySelectorAll('.dominant')].map((each) => each.textContent.replace(/\\s+/g, ' '))")
    assert sorted(shown) == ["sad 50 %"] * 5, "the dominant one of the selected emotions"
    browser.click(".chip:nth-child(5)")
    browser.click(".chip:nth-child(3)")
    assert names_shown(browser) == [], "no face shows fear with a confidence of a half"
    opacities = "return [...document.querySelectorAll('.strip rect')].map((each) => each.getAttribute('fill-opacity'))"
    browser.click(".chip:nth-child(3)")
    assert set(browser.run(opacities)) == {"1"}
    choose(browser, "Confidence", "90")
    assert set(browser.run(opacities)) == {"1", "0.45"}, "all sad faces have a confidence of 80 to 90 %"
    browser.click(".chip:nth-child(3)")
    choose(browser, "Confidence", "40")
    assert set(names_shown(browser)) == {readable_name(name) for name in HOSTILE}
    browser.click(".chip:nth-child(3)")
    choose(browser, "People", "none")
    assert names_shown(browser) == ["<b>empty</b>.mp4", "nobody.mp4"]
    choose(browser, "People", "")
    choose(browser, "Show", "last")
    assert names_shown(browser) == ["angry.mp4"]
    choose(browser, "Show", "")
    choose(browser, "Medium", "ONERROR")
    assert names_shown(browser) == [HOSTILE[0]]


def test_a_row_is_a_link_and_media_lead_to_the_next(browser: Browser, page: str) -> None:
    browser.open(page)
    title = "return document.querySelector('#medium h1')?.textContent"
    names = names_shown(browser)
    browser.click(".media tbody tr:nth-child(1) .dominant")
    browser.wait(f"{title} === arguments[0]", names[0])
    place = "return document.querySelector('.pager').innerText.replace(/\\s+/g, ' ')"
    assert browser.run(place) == f"Previous 1 of {len(names)} Next"
    assert browser.run("return document.querySelectorAll('.pager a').length") == 1, "the first has no previous one"
    browser.click(".pager a[rel=next]")
    browser.wait(f"{title} === arguments[0]", names[1])
    browser.click(".pager a[rel=prev]")
    browser.wait(f"{title} === arguments[0]", names[0])


def test_filters_within_a_medium(browser: Browser, page: str) -> None:
    open_medium(browser, page, HOSTILE[0])
    titles = "return [...document.querySelectorAll('.track h2')].map((each) => each.textContent)"
    assert browser.run(titles) == ["Person 1", "Person 2"]
    choose(browser, "Person", "2")
    assert browser.run(titles) == ["Person 2"]
    assert "No episode" in browser.run("return document.querySelector('.track').innerText")
    choose(browser, "Person", "")
    browser.click("#medium .chip:nth-child(5)")
    assert browser.run(titles) == ["Person 1"], "the other is never sad"
    before = browser.run("return document.querySelector('.chart canvas').toDataURL()")
    browser.click("#medium .check input")
    assert browser.run("return document.querySelector('.chart canvas').toDataURL()") != before, "raw values are drawn, too"


def test_accessible_names_and_tables(browser: Browser, page: str) -> None:
    open_medium(browser, page, HOSTILE[0])
    browser.execute_cdp_cmd("Accessibility.enable", {})
    nodes = [node for node in browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"] if not node["ignored"]]
    named = [
        (node["role"]["value"], node["name"]["value"])
        for node in nodes
        if node["role"]["value"] in {"button", "slider", "checkbox", "combobox", "image", "Video"}
    ]
    assert {"button", "slider", "checkbox", "combobox", "image", "Video"} == {role for role, _ in named}
    assert [role for role, name in named if not name.strip()] == []
    browser.run("document.querySelector('details').open = true")
    browser.wait("return document.querySelectorAll('.episodes tbody tr').length === 2")
    table = browser.run("return document.querySelector('.episodes').innerText")
    assert "happy" in table
    assert "sad" in table
    browser.open(page)
    strip = browser.run("return [...document.querySelectorAll('.strip svg')].map((each) => each.getAttribute('aria-label'))")
    assert "happy, then sad" in strip
    assert "angry 17" in browser.run("return document.querySelector('.distribution').getAttribute('aria-label')").replace("\u202f", " ")


def test_themes(browser: Browser, page: str) -> None:
    browser.open(page)
    ground = "return getComputedStyle(document.body).backgroundColor"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    dark = browser.run(ground)
    browser.click("#theme")
    light = browser.run(ground)
    browser.click("#theme")
    assert browser.run(ground) == dark != light
    browser.click("#theme")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "light"}]})
    assert browser.run(ground) == light


def test_zoom_and_pan(browser: Browser, page: str) -> None:
    open_medium(browser, page, HOSTILE[0])
    picture = "return document.querySelector('.chart canvas').toDataURL()"
    seen = [browser.run(picture)]
    for name in ("Zoom in", "Later", "Earlier", "Zoom out"):
        browser.click(f"[aria-label='{name}']")
        seen.append(browser.run(picture))
    assert len({*seen[:3]}) == 3
    assert (seen[3], seen[4]) == (seen[1], seen[0])


@pytest.mark.parametrize("width", [1440, 820, 390, 320])
def test_nothing_is_wider_than_the_window(browser: Browser, page: str, width: int) -> None:
    browser.resize(width, 900)
    browser.open(page)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    open_medium(browser, page, HOSTILE[0])
    assert browser.run("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 375, 360])
def test_names_of_emotions_are_not_broken(browser: Browser, page: str, width: int) -> None:
    browser.resize(width, 900)
    open_medium(browser, page, HOSTILE[0])
    heights = browser.run("return [...document.querySelectorAll('#medium .chip .name')].map((name) => name.offsetHeight)")
    assert len(heights) == 7
    assert len(set(heights)) == 1


def test_an_averaged_page_says_so(browser: Browser, results: Path) -> None:
    shown = "return document.querySelector('.hint').textContent"
    site = write_site(results)
    open_medium(browser, site.page.as_uri(), HOSTILE[0])
    assert "means over" not in browser.run(shown)
    packed = re.findall(r'id="timeline-\d+">([^<]*)<', site.page.read_text())
    try:
        site = write_site(results, max_bytes=sum(map(len, packed)) - 1)
        open_medium(browser, site.page.as_uri(), HOSTILE[0])
        assert re.search(r"raw values are means over 0\.\d+ s", browser.run(shown))
    finally:
        write_site(results)


def test_a_split_page_loads_timelines_as_they_are_opened(browser: Browser, results: Path) -> None:
    site = write_site(results, max_media=1)
    try:
        open_medium(browser, site.page.as_uri(), HOSTILE[0])
        assert browser.run("return document.querySelectorAll('.chart').length") == 2
        browser.run("document.querySelector('.navigation a').click()")
        browser.wait("return [...document.querySelectorAll('.face img')].some((image) => image.naturalWidth > 0)")
        sources = browser.run("return [...document.querySelectorAll('.face img')].map((image) => image.src)")
        assert len(sources) == len(HOSTILE) + 1, "of all but those without a face"
        assert all("/thumbnails/" in source for source in sources)
    finally:
        write_site(results)
