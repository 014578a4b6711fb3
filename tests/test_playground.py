"""The page in a real browser: uncovering, comparing, gaps, keyboard, colours, and nothing fetched from elsewhere."""

import os
import shutil

import pytest

pytest.importorskip("fastapi", reason="needs the extra: pip install 'mezzotint[serve]'")
playwright = pytest.importorskip("playwright.sync_api", reason="drives the browser with playwright: pip install playwright")

from test_server import Served  # noqa: E402

from mezzotint.engine import EngineSettings  # noqa: E402
from mezzotint.server.settings import ServerSettings  # noqa: E402

expect = playwright.expect
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = os.environ.get("MEZZOTINT_SCREENSHOTS")
"""A folder to keep screenshots in."""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH (Debian: apt-get install chromium) or in $CHROMIUM")


@pytest.fixture(scope="module")
def served():
    found = Served(ServerSettings(EngineSettings(running=8)))
    yield found
    found.end()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def page(served, browser):
    """A fresh page; anything it complains of, or asks of another host, fails the test."""
    context = browser.new_context(viewport={"width": 1180, "height": 900})
    found = context.new_page()
    complaints: list[str] = []
    found.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") and "status of 400" not in message.text else None
    )
    found.on("pageerror", lambda error: complaints.append(str(error)))
    found.on("request", lambda request: complaints.append(request.url) if not request.url.startswith((served.url, "data:")) else None)
    found.goto(served.url)
    expect(found.locator("#recipe")).to_have_value("threshold")
    yield found
    context.close()
    assert complaints == []


def keep(page, name):
    if SCREENSHOTS:
        page.screenshot(path=f"{SCREENSHOTS}/{name}.png")


def finished(page):
    expect(page.locator("#run")).to_be_enabled(timeout=60_000)


def figures(page, panel):
    return {
        k: float(v.replace(",", ""))
        for k, v in page.locator(".panel")
        .nth(panel)
        .locator(".figures > div")
        .evaluate_all("found => found.map(d => [d.querySelector('dt').textContent, d.querySelector('dd').textContent])")
    }


def test_a_recipe_beside_plain_decoding_with_the_keyboard_alone(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("#text").focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("Copy these words: amber coral lantern maple fox")
    page.keyboard.press("Control+Enter")
    finished(page)
    assert page.locator(".panel h2").all_inner_texts() == ["threshold", "plain"]
    fast, plain = figures(page, 0), figures(page, 1)
    assert 0 < fast["forwards"] < plain["forwards"]
    assert fast["tokens"] > 3
    assert fast["seconds"] > 0
    answer = page.locator(".panel").first.locator("p.hidden").text_content()
    assert answer
    assert answer in page.locator("#status").text_content()
    assert page.locator(".panel").first.locator(".canvas").text_content().startswith(answer)
    keep(page, "playground-light")

    slider = page.locator(".panel").nth(1).locator("input[type=range]")
    slider.focus()
    page.keyboard.press("Home")
    assert page.locator(".panel").nth(1).locator(".canvas .token").count() == 1
    assert page.locator(".panel").nth(1).locator(".canvas .open.active").count() == 31
    assert figures(page, 1)["forwards"] == 1


def test_gaps_drafts_and_dark_colours(page):
    page.emulate_media(color_scheme="dark")
    page.get_by_label("Fill gaps").check()
    page.locator("#recipe").select_option("dual")
    page.get_by_label("show drafts").check()
    page.get_by_role("button", name="Uncover").click()
    finished(page)
    text = page.locator("#text").input_value()
    shown = page.locator(".panel").first.locator(".canvas").text_content()
    before, middle, after = text.split("[[4]]")[0], text.split("[[4]]")[1].split("[[1]]")[0], text.split("[[1]]")[1]
    assert shown.startswith(before)
    assert middle in shown
    assert shown.endswith(after)
    assert figures(page, 0)["tokens"] == 5
    page.locator(".panel").nth(1).locator("input[type=range]").focus()
    page.keyboard.press("Home")
    assert page.locator(".panel").nth(1).locator(".canvas .draft").count() == 4
    light_ink = page.evaluate("getComputedStyle(document.body).color")
    keep(page, "playground-dark")
    page.get_by_role("button", name="Colours").click()
    assert page.evaluate("getComputedStyle(document.body).color") != light_ink


def test_errors_and_stopping_are_told(page):
    page.locator("#block_length").fill("7")
    page.get_by_role("button", name="Uncover").click()
    expect(page.locator("#error")).to_contain_text("block_length=7")
    finished(page)
    page.locator("#block_length").fill("32")
    page.locator("#gen_length").fill("2048")
    page.locator("#recipe").select_option("llada")
    page.get_by_role("button", name="Uncover").click()
    page.wait_for_selector(".canvas .token")
    page.keyboard.press("Escape")
    expect(page.locator("#status")).to_have_text("Stopped")
    assert page.locator("#error").text_content() == ""


def test_every_control_has_a_name(page):
    snapshot = page.locator("body").aria_snapshot()
    for name in ("Ask", "Continue a text", "Fill gaps", "Question", "Recipe", "Masks", "Per block", "Temperature", "Seed", "Uncover", "Stop"):
        assert f'"{name}"' in snapshot, name
    unnamed = page.locator("button, input, select, textarea").evaluate_all(
        "found => found.filter(e => !e.ariaLabel && !e.textContent.trim() && !(e.labels && e.labels.length)).map(e => e.outerHTML)"
    )
    assert unnamed == []
