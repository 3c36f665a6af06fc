"""Slow: the page in a real Chromium, driven by Playwright: by mouse, by keys, light and dark.

GRIFFIN_SCREENSHOTS=1 writes the pictures of docs/serving.md again.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from griffin_lm.inference import LanguageModel
from tests.server.conftest import KEY, Live, running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ROOT = Path(__file__).parents[2]
BOOK = ROOT / "src" / "griffin_lm" / "fledgling" / "book.txt"
IMAGES = ROOT / "docs" / "images"
NOTE = "The name is Emma, the place is Bath, the number is 47."

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: the page was not driven"),
]
api = pytest.importorskip("playwright.sync_api", reason="no playwright: the page was not driven")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def live(fledgling: LanguageModel, tmp_path: Path) -> Iterator[Live]:
    folder = tmp_path / "states"
    with running(fledgling, api_keys=(KEY,), state_dir=folder, max_tokens=150) as live:
        yield live


@pytest.fixture
def fresh(browser: Any, live: Live) -> Iterator[Any]:
    """The page, asking for its key. At the end: nothing failed in it, nobody else was asked."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 800}, color_scheme="light", reduced_motion="reduce"
    )
    page, wrong = context.new_page(), []
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("request", lambda request: ours(request.url) or wrong.append(request.url))
    page.on("console", lambda line: refusal(line.text) or wrong.append(line.text))

    def ours(url: str) -> bool:
        return url.startswith((f"{live.url}/", f"blob:{live.url}/"))

    page.goto(live.url)
    yield page
    context.close()
    assert not wrong


def refusal(line: str) -> bool:
    """Whether Chromium only says that an answer was an error, which the page shows itself."""
    return bool(re.match(r"Failed to load resource: the server responded with a status of 4", line))


@pytest.fixture
def page(fresh: Any) -> Any:
    """The page, let in."""
    fresh.fill("#key", KEY)
    fresh.press("#key", "Enter")
    fresh.wait_for_selector("#model:not(:empty)")
    fresh.wait_for_selector("#sessions option", state="attached")
    return fresh


def number(page: Any, place: str) -> int:
    return int(page.inner_text(place).replace(",", ""))


def wait(page: Any, happened: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end, f"{what}; the page says: {page.inner_text('#error')!r}"
        page.wait_for_timeout(20)


def until(page: Any, condition: str) -> None:
    """Waits for a condition in JavaScript; the page's policy keeps Playwright's own way out."""
    wait(page, lambda: page.evaluate(condition), condition)


def ask(page: Any, question: str) -> str:
    """The answer's own words."""
    asked = page.locator("#log .it").count()
    page.fill("#question", question)
    page.press("#question", "Enter")
    answer = page.locator("#log .it").nth(asked)
    answer.locator("small").wait_for()
    return answer.evaluate("item => item.firstChild.textContent")


def choose(page: Any, text: str, name: str = "book.txt") -> None:
    """Has a file read to its end."""
    content = {"name": name, "mimeType": "text/plain", "buffer": text.encode()}
    page.set_input_files("#file", content)
    page.get_by_text(f"{name} was read").last.wait_for()


def plant(page: Any) -> None:
    page.fill("#note", NOTE)
    page.click("text=Plant a note")
    page.get_by_text("planted: ").last.wait_for()


def watch(page: Any, place: str) -> None:
    """From here on, notes every text that stands at a place."""
    page.evaluate(
        """place => {
          const seen = (window.seen ||= {}), element = document.querySelector(place);
          seen[place] = [];
          new MutationObserver(() => seen[place].push(element.textContent))
            .observe(element, { childList: true, characterData: true, subtree: true });
        }""",
        place,
    )


def seen(page: Any, place: str) -> list[str]:
    return page.evaluate("place => window.seen[place]", place)


def test_it_asks_for_its_key_and_keeps_it_for_the_tab_only(fresh: Any) -> None:
    fresh.wait_for_selector("#key-dialog[open]")
    fresh.fill("#key", "wrong")
    fresh.press("#key", "Enter")
    fresh.get_by_text("not one of this server's").wait_for()
    fresh.fill("#key", KEY)
    fresh.press("#key", "Enter")
    fresh.get_by_text("fledgling", exact=True).wait_for()
    assert not fresh.is_visible("#key-dialog")
    fresh.reload()
    fresh.get_by_text("fledgling", exact=True).wait_for()
    assert not fresh.is_visible("#key-dialog")
    assert fresh.evaluate("localStorage.length + document.cookie.length") == 0


def test_a_book_is_seen_being_read_and_the_note_before_it_is_known(page: Any) -> None:
    plant(page)
    for place in ("#tokens", "#bytes", "#cache", "#speed"):
        watch(page, place)
    page.evaluate("window.plots = [document.querySelector('#plot').toDataURL()]")
    choose(page, BOOK.read_text()[:30_000])
    tokens = [int(text.replace(",", "")) for text in seen(page, "#tokens")]
    assert len(set(tokens)) > 10 and tokens == sorted(tokens)
    assert len(set(seen(page, "#bytes"))) == 1  # the state does not grow
    caches = seen(page, "#cache")
    assert len(set(caches)) > 5 and caches[-1].endswith("MB")
    assert number(page, "#speed") > 100
    page.evaluate("window.plots.push(document.querySelector('#plot').toDataURL())")
    assert len(set(page.evaluate("window.plots"))) == 2
    assert [ask(page, f"What is the {each}?") for each in ("name", "place", "number")] == [
        "Emma",
        "Bath",
        "47",
    ]
    assert number(page, "#tokens") == tokens[-1]  # asked on forks


def test_a_file_is_dropped_anywhere(page: Any) -> None:
    data = page.evaluate_handle(
        """text => { const data = new DataTransfer();
          data.items.add(new File([text], "server.log")); return data; }""",
        "all is well\n" * 300,
    )
    page.dispatch_event("#talk", "dragenter", {"dataTransfer": data})
    assert page.is_visible("#over")
    page.dispatch_event("#talk", "drop", {"dataTransfer": data})
    page.get_by_text("server.log was read").wait_for()
    assert not page.is_visible("#over")
    assert number(page, "#tokens") > 300


def test_a_reading_that_is_stopped_keeps_what_was_read(page: Any, live: Live) -> None:
    page.set_input_files("#file", BOOK)
    until(page, "Number(document.querySelector('#tokens').textContent.replace(',','')) > 2000")
    page.keyboard.press("Escape")
    page.wait_for_selector("#reading", state="hidden")
    until(page, "document.querySelectorAll('#marks button').length === 1")
    with live.http() as http:
        (session,) = http.get("/v1/sessions").json()["data"]
    assert 2000 < session["tokens"] < 60_000
    assert session["marks"] == [0]
    assert ask(page, "What is the name?")


def test_a_chat_streams(page: Any) -> None:
    page.check("#to-chat")
    watch(page, "#log")
    assert len(ask(page, "Tell me of the house.")) > 5
    assert len(set(seen(page, "#log"))) > 5
    assert page.locator("#log .you").inner_text() == "Tell me of the house."
    page.fill("#question", "And then?")
    page.press("#question", "Enter")
    until(page, "document.querySelectorAll('#log .it')[1]?.textContent.length > 5")
    page.keyboard.press("Escape")
    page.wait_for_timeout(500)
    stopped = page.locator("#log .it").nth(1).inner_text()
    page.wait_for_timeout(500)
    assert page.locator("#log .it").nth(1).inner_text() == stopped
    assert page.locator("#log .it small").count() == 1  # the second has no end
    assert page.inner_text("#error") == ""


def test_sessions_fork_go_back_are_saved_and_loaded(page: Any, tmp_path: Path) -> None:
    plant(page)
    noted = number(page, "#tokens")
    page.click("#fork")
    until(page, "document.querySelectorAll('#sessions option').length === 2")
    assert page.input_value("#sessions") == "session-2"
    choose(page, "A line of a log.\n" * 100, "some.log")
    assert number(page, "#tokens") > noted
    page.click(f"#marks button[data-tokens='{noted}']")
    page.get_by_text(f"back at {noted} tokens").wait_for()
    assert number(page, "#tokens") == noted
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "session-2.state"
    download.value.save_as(tmp_path / "s.state")
    page.click("#delete")
    until(page, "document.querySelectorAll('#sessions option').length === 1")
    page.click("#new")
    until(page, "document.querySelectorAll('#sessions option').length === 2")
    assert number(page, "#tokens") == 0
    page.set_input_files("#load", tmp_path / "s.state")
    until(page, "document.querySelector('#sessions').value.startsWith('loaded')")
    assert number(page, "#tokens") == noted
    assert ask(page, "What is the place?") == "Bath"
    page.set_input_files("#load", {"name": "x", "mimeType": "text/plain", "buffer": b"nonsense"})
    page.wait_for_selector("#error:not(:empty)")


def test_it_is_used_by_keys_alone(page: Any) -> None:
    choosers: list[Any] = []
    # Listened for early: Playwright doesn't wait until that is in force.
    page.on("filechooser", lambda chooser: choosers.append(chooser))
    page.keyboard.press("Escape")  # out of the field of the question
    page.keyboard.press("?")
    page.get_by_text("plant a note", exact=True).wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("m")
    page.keyboard.type(NOTE)
    page.keyboard.press("Enter")
    page.get_by_text("planted: ").wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("f")
    until(page, "document.querySelectorAll('#sessions option').length === 2")
    page.keyboard.press("/")
    page.keyboard.type("What is the name?")
    page.keyboard.press("Enter")
    page.locator("#log .it small").wait_for()
    assert page.locator("#log .it").inner_text().startswith("Emma")
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    page.get_by_text("back at 0 tokens").wait_for()
    page.keyboard.press("t")
    assert page.is_checked("#to-chat")
    page.keyboard.press("b")
    wait(page, lambda: bool(choosers), "a file chooser")
    with page.expect_download():
        page.keyboard.press("s")


def contrast(page: Any, place: str) -> float:
    """The contrast of a text with what lies behind it, as WCAG reckons it."""
    return page.evaluate(
        """place => {
          const light = (color) => color.match(/[\\d.]+/g).slice(0, 3)
            .map((part) => part / 255)
            .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
            .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
          const style = (element) => getComputedStyle(element);
          const element = document.querySelector(place);
          let behind = element;
          while (style(behind).backgroundColor === "rgba(0, 0, 0, 0)")
            behind = behind.parentElement;
          const both = [light(style(element).color), light(style(behind).backgroundColor)];
          return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
        }""",
        place,
    )


def test_it_is_light_and_dark_and_pictures_are_made(page: Any, tmp_path: Path) -> None:
    def shot(name: str) -> bytes:
        page.screenshot(path=tmp_path / name)
        return (tmp_path / name).read_bytes()

    plant(page)
    page.set_input_files("#file", BOOK)
    until(page, "Number(document.querySelector('#tokens').textContent.replace(',','')) > 9000")
    reading = shot("page-reading.png")
    page.keyboard.press("Escape")
    until(page, "document.querySelectorAll('#marks button').length === 2")
    for each in ("name", "place"):
        ask(page, f"What is the {each}?")
    page.evaluate("document.activeElement.blur()")
    texts = ["#model", "#log .you", "#log .it", "#figures .mine dt", "#figures .theirs dt", "#send"]
    assert min(contrast(page, text) for text in texts) >= 4.5
    light = shot("page-light.png")
    page.emulate_media(color_scheme="dark")
    assert min(contrast(page, text) for text in texts) >= 4.5
    dark = shot("page-dark.png")
    assert len({reading, light, dark}) == 3
    page.set_viewport_size({"width": 390, "height": 800})  # a telephone: nothing sticks out
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    if os.environ.get("GRIFFIN_SCREENSHOTS"):
        for file in tmp_path.glob("page-*.png"):
            shutil.copy(file, IMAGES / file.name)
