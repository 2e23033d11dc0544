"""The README's picture of a sweep's report: docs/sweep-report.html as a browser shows it.

python -m docs.make.report_picture    # needs Chromium
"""

from __future__ import annotations

import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright

DOCS = Path(__file__).parents[1]
SCREEN = {"width": 1100, "height": 760}


def main() -> None:
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport=SCREEN, color_scheme="light")
        page.goto((DOCS / "sweep-report.html").as_uri())
        # Charts are drawn by then.
        page.wait_for_selector("svg, canvas")
        page.screenshot(path=DOCS / "sweep-report.png")
        browser.close()


if __name__ == "__main__":
    main()
