"""The page in a real browser: it works from a file alone, by mouse and by keyboard, in the light,
in the dark and on paper, and nothing in it is taken for a command."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from job.storage.disk import LocalStorage
from tests.kit.report_data import BEGAN, HOSTILE, hostile_sweep, keep, keep_run, realistic_sweep
from tuning.records import FINISHED, Outcome, write_outcome
from tuning.report import serve
from tuning.report.command import report, write_report
from tuning.report.frame import Frame, Price

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
# Set where the browser must be there, so that no run passes by skipping all of this.
WANTED = os.environ.get("CI_BROWSER") == "1"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

FRAME = Frame(written=BEGAN)
PRICED = Frame(written=BEGAN, price=Price(amount=0.8, currency="EUR"))

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not WANTED, reason="no Chromium here: apt-get install chromium"
)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    assert CHROMIUM is not None, "CI_BROWSER=1, but there is no Chromium"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield running
        running.close()


class Opened:
    """A report in a tab, and what was noticed of it."""

    def __init__(self, browser, path: Path | str, **options) -> None:
        url = path if isinstance(path, str) else path.as_uri()
        self.noticed: list[str] = []
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        page = self.page = self.context.new_page()
        page.on("request", lambda request: self._request(request.url, url))
        page.on("console", lambda message: self._console(message))
        page.on("pageerror", lambda error: self.noticed.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.noticed.append("dialog"), dialog.dismiss()))
        page.goto(url)
        page.wait_for_selector("html[data-charts=ready]", timeout=60_000)

    def _request(self, url: str, wanted: str) -> None:
        if url != wanted:
            self.noticed.append(f"request: {url}")

    def _console(self, message) -> None:
        if message.type in ("error", "warning"):
            self.noticed.append(f"console: {message.text}")

    def column(self, number: int) -> list[str]:
        """The visible cells of a column of the table of trials."""
        rows = self.page.locator("#grid tbody tr:visible")
        return [text.strip() for text in rows.locator(f"> :nth-child({number})").all_inner_texts()]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    for name, content in write_report([realistic_sweep()], PRICED).items():
        (folder / name).write_bytes(content)
    return folder / "report.html"


@pytest.fixture
def opened(browser, path) -> Iterator[Opened]:
    tab = Opened(browser, path)
    yield tab
    tab.context.close()


def numbers(texts: list[str]) -> list[float]:
    return [float(text.replace("\u202f%", "")) for text in texts if text != "–"]


def test_it_needs_no_network_and_logs_nothing(opened):
    assert opened.page.locator(".plot svg").count() == 7
    assert opened.page.locator(".plot svg path").count() > 60
    # What the page may not do is refused, rather than left out by chance.
    assert opened.noticed == []
    with opened.page.expect_console_message(lambda message: message.type == "error") as refusal:
        opened.page.evaluate("fetch('http://127.0.0.1:9/').catch(() => 0)")
    assert "Content Security Policy" in refusal.value.text


def test_the_example_in_the_documentation_opens(browser):
    tab = Opened(browser, Path(__file__).parents[2] / "docs" / "sweep-report.html")
    assert len(tab.column(1)) >= 16
    assert tab.noticed == []
    tab.context.close()


def test_the_table_is_sorted_by_mouse_and_keyboard(opened):
    accuracy = opened.page.locator("#grid th", has_text="validation accuracy")
    assert accuracy.get_attribute("aria-sort") == "descending"
    shown = numbers(opened.column(8))
    assert shown == sorted(shown, reverse=True)
    accuracy.locator("button").click()
    assert accuracy.get_attribute("aria-sort") == "ascending"
    shown = opened.column(8)
    assert numbers(shown) == sorted(numbers(shown))
    # Trials without an accuracy come last either way.
    assert shown[-2:] == ["–", "–"]
    optimizer = opened.page.locator("#grid th", has_text="optimizer")
    optimizer.locator("button").focus()
    opened.page.keyboard.press("Enter")
    assert optimizer.get_attribute("aria-sort") == "ascending"
    assert accuracy.get_attribute("aria-sort") is None
    assert opened.column(4) == sorted(opened.column(4))
    opened.page.keyboard.press("Space")
    assert opened.column(4) == sorted(opened.column(4), reverse=True)
    opened.page.locator("#grid th", has_text="trial").first.locator("button").click()
    assert opened.column(1) == [str(number) for number in range(17, -1, -1)]


def test_the_table_is_filtered(opened):
    page = opened.page
    page.get_by_label("Filter").fill("adam 128")
    assert sorted(opened.column(1)) == ["11", "3"]
    assert page.locator("#count").inner_text() == "2 of 18"
    page.get_by_label("Filter").fill("")
    page.get_by_role("checkbox", name="stopped").focus()
    page.keyboard.press("Space")
    page.get_by_role("checkbox", name="finished 7", exact=True).uncheck()
    assert sorted(opened.column(1)) == ["12", "15", "6"]
    page.get_by_label("Filter").fill("nothing like this")
    assert opened.column(1) == []
    assert page.locator("#count").inner_text() == "0 of 18"


def test_a_trial_stands_out_in_all_charts(opened):
    page = opened.page

    # A chart is drawn anew some time after the click.
    clear_lines = """() =>
      [...document.querySelectorAll("#curve-val_accuracy path[stroke-width='1.6']")]
        .filter((line) => Number(line.getAttribute("opacity") ?? 1) > 0.5).length"""
    before = page.evaluate(clear_lines)
    assert before > 3
    page.get_by_role("button", name="Trial 3: show alone in the charts").focus()
    page.keyboard.press("Enter")
    page.wait_for_function(f"({clear_lines})() === 1")
    assert "Shown alone in the charts: 3" in page.locator("#alone").inner_text()
    page.keyboard.press("Escape")
    page.wait_for_function(f"({clear_lines})() === {before}")
    assert not page.locator("#alone").is_visible()


def test_pointing_at_a_line_tells_its_trial(opened):
    page = opened.page
    dot = page.locator("#curve-val_accuracy svg").bounding_box()
    for share in range(2, 98, 2):
        page.mouse.move(dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] * share / 100)
        if page.locator("#tip").is_visible():
            break
    assert page.locator("#tip").is_visible()
    assert "learning rate" in page.locator("#tip").inner_text()
    page.mouse.move(5, 5)
    page.wait_for_selector("#tip", state="hidden")


def test_the_command_is_copied(browser, path):
    opened = Opened(browser, path, permissions=["clipboard-read", "clipboard-write"])
    opened.page.clock.install(time=0)
    opened.page.clock.pause_at(1_000)
    opened.page.get_by_role("button", name="Copy: command").click()
    # The browser writes to the clipboard after the click; on a stopped clock the word stays.
    opened.page.wait_for_selector("button.copy:text-is('Copied')")
    copied = opened.page.evaluate("navigator.clipboard.readText()")
    assert copied == realistic_sweep().winner.command
    opened.page.clock.run_for(2_000)
    opened.page.wait_for_selector("button.copy:text-is('Copy')")
    opened.context.close()


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_screen(browser, path, width):
    opened = Opened(browser, path)
    opened.page.set_viewport_size({"width": width, "height": 900})
    # The charts follow the screen's width some time later.
    opened.page.wait_for_function(f"document.documentElement.scrollWidth <= {width}")
    if width == 1280:
        # All columns of a usual space are seen without scrolling.
        opened.page.wait_for_function(
            "[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)"
        )
    opened.context.close()


LUMINANCE = """color => {
  const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
    .map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
}"""
# Of each text its colour, what that is against, and how it begins; without those in the cells of
# heat maps, which have a ground of their own, and the rims around other texts.
TEXTS = """() => [...document.querySelectorAll('main *, header *, footer *')]
  .filter((e) => !e.closest('[id^=heat-] .mark-text') && !e.getAttribute('stroke'))
  .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
  .filter((e) => e.getClientRects().length)
  .map((e) => {
    let back = e;
    const ground = (e) => getComputedStyle(e).backgroundColor;
    while (back.parentElement && ground(back) === 'rgba(0, 0, 0, 0)') back = back.parentElement;
    const style = getComputedStyle(e);
    const color = e instanceof SVGElement ? style.fill : style.color;
    return [color, ground(back), e.textContent.slice(0, 40)];
  })"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_in_either_scheme(browser, path, scheme):
    opened = Opened(browser, path, color_scheme=scheme)
    page = opened.page
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    is_dark = page.evaluate(LUMINANCE, ground) < 0.2
    assert is_dark == (scheme == "dark")
    label = page.locator("#curve-val_accuracy .role-axis-label text").first
    fill = label.evaluate("e => getComputedStyle(e).fill")
    assert (page.evaluate(LUMINANCE, fill) > 0.2) == is_dark
    texts = page.evaluate(TEXTS)
    assert len(texts) > 200
    for colour, back, text in texts:
        pair = sorted((page.evaluate(LUMINANCE, c) for c in (colour, back)), reverse=True)
        assert (pair[0] + 0.05) / (pair[1] + 0.05) >= 4.5, (text, colour, back)
    for step in range(5):
        pair = [
            page.evaluate(
                "name => { const e = document.body.appendChild(document.createElement('i'));"
                " e.style.color = `var(${name})`; const c = getComputedStyle(e).color;"
                " e.remove(); return c; }",
                name,
            )
            for name in (f"--heat-{step}", f"--heat-ink-{step}")
        ]
        light, dark = sorted((page.evaluate(LUMINANCE, c) for c in pair), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (scheme, step)
    assert opened.noticed == []
    opened.context.close()


def test_paper_is_light_and_shows_every_row(browser, path):
    opened = Opened(browser, path, color_scheme="dark")
    page = opened.page
    page.get_by_label("Filter").fill("nothing like this")
    page.emulate_media(media="print", color_scheme="dark")
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert page.evaluate(LUMINANCE, ground) > 0.9
    for text, part in (("h1", "color"), ("#curve-val_accuracy .role-axis-label text", "fill")):
        colour = page.locator(text).first.evaluate(f"e => getComputedStyle(e).{part}")
        assert page.evaluate(LUMINANCE, colour) < 0.2
    assert len(opened.column(1)) == 18
    assert not page.locator(".tools").is_visible()
    page.set_viewport_size({"width": 690, "height": 1000})
    assert page.evaluate("document.documentElement.scrollWidth") <= 690
    assert page.pdf(format="A4", print_background=True).startswith(b"%PDF")
    opened.context.close()


def test_its_parts_are_named_and_in_order(opened):
    page = opened.page
    headings = "[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')]"
    levels = page.evaluate(f"{headings}.map(e => +e.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    for landmark in ("banner", "navigation", "main", "contentinfo"):
        assert page.get_by_role(landmark).count() == 1, landmark
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(set(ids)) == len(ids)
    for plot in page.locator(".plot").all():
        assert len(plot.get_attribute("aria-label")) > 40
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button, input')].filter(e =>"
        " !(e.ariaLabel || e.textContent.trim() || e.labels?.length)).length"
    )
    assert unnamed == 0
    page.keyboard.press("Tab")
    skip = page.locator(".skip")
    assert skip.evaluate("e => e === document.activeElement && e.getBoundingClientRect().x >= 0")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    # Focus is seen wherever it is.
    page.keyboard.press("Tab")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_hostile_texts_do_nothing(browser, tmp_path):
    path = tmp_path / "report.html"
    path.write_bytes(write_report([hostile_sweep()], FRAME)["report.html"])
    opened = Opened(browser, path)
    page = opened.page
    for plot in page.locator(".plot svg").all():
        box = plot.bounding_box()
        plot.scroll_into_view_if_needed()
        for share in (0.2, 0.4, 0.6, 0.8):
            box = plot.bounding_box()
            page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] * share)
    page.get_by_role("button", name="Trial 3").click()
    page.locator("#grid th", has_text="optimizer").locator("button").click()
    page.get_by_label("Filter").fill("<script>")
    # Two frames later, whatever the page was led to do has been begun and told.
    page.evaluate("new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))")
    assert opened.noticed == []
    assert (
        page.locator(
            "main img, main script, svg[onload], .plot foreignObject, a[href^=java]"
        ).count()
        == 0
    )
    assert page.title() == f"{HOSTILE[0]} – sweep"
    assert page.locator("h1").inner_text() == HOSTILE[0]
    opened.context.close()


def test_runs_are_compared_in_the_browser(browser, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        keep_run(LocalStorage("runs"), f"seed-{seed}", quality=0.9 + seed / 50, seed=seed)
    keep_run(LocalStorage("runs"), "alone", quality=0.7, batch_size=32)
    for names, charts in ((["alone"], 2), (["seed-1", "seed-2", "alone"], 2)):
        written = Path(report(names)[0]).resolve()
        opened = Opened(browser, written)
        assert opened.page.locator(".plot svg").count() == charts
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 1280
        if len(names) > 1:
            opened.page.locator("#grid th", has_text="test accuracy").locator("button").click()
            shown = numbers(opened.column(8))
            assert shown == sorted(shown, reverse=True)
            assert len(shown) == 3
        assert opened.noticed == []
        opened.context.close()


def test_a_live_page_follows_its_sweep_and_looks_as_it_did(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "HOLDS_SECONDS", 0.0)
    place, sweep = LocalStorage(str(tmp_path / "s")), realistic_sweep(ended=False)
    keep(place, sweep)
    server = serve.Server(serve.Live([str(tmp_path / "s")], "runs"))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    tab = Opened(browser, server.url)
    page, live = tab.page, tab.page.locator("#live")
    # What asks every few seconds asks as well when the tab is looked at again.
    look = "document.dispatchEvent(new Event('visibilitychange'))"
    assert live.inner_text() == "Live"
    page.locator("#filter").fill("adam")
    page.locator("input.state[value=stopped]").uncheck()
    page.locator("#grid th", has_text="trial").first.locator("button").click()
    page.locator("#grid th", has_text="trial").first.locator("button").click()
    page.locator("#grid tr[data-key='3'] button.pin").click()
    assert tab.column(1) == ["3", "11", "15"]
    rows = sweep.trials[3].outcome.history
    write_outcome(place, sweep.trials[15].plan, Outcome(state=FINISHED, history=rows, seconds=9.0))
    with page.expect_navigation():
        page.evaluate(look)
    page.wait_for_selector("html[data-charts=ready]")
    page.wait_for_function("document.getElementById('filter').value === 'adam'")
    assert tab.column(1) == ["3", "11", "15"]
    assert page.locator("#grid tr[data-key='15']").inner_text().split()[1] == "finished"
    assert page.locator("button.pin[aria-pressed=true]").count() == 1
    assert tab.noticed == []
    server.shutdown()
    server.server_close()
    thread.join()
    page.evaluate(look)
    page.wait_for_selector("#live.ended")
    assert live.inner_text() == "Not live: nobody answers any more"
    tab.context.close()
