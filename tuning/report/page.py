"""From what a page shows to one HTML file that needs nothing else.

Texts from outside reach the page in two ways only: through Jinja's escaping, and as JSON that holds
no character which means something in HTML. The page's policy forbids everything but the scripts
and the style that are in it, by their hashes: no network, no evaluated text, no handler in an
attribute.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from tuning.report import text
from tuning.report.charts import curves as charts
from tuning.report.frame import Frame

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("table.js", "charts.js")
FOLLOWS = "live.js"
CONNECT = "; connect-src 'self'"
STYLE = "report.css"
FILTERS = (
    text.percent,
    text.percent_pair,
    text.share,
    text.chance,
    text.loss,
    text.seconds,
    text.amount,
    text.when,
    text.setting,
    text.words,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart on a page.

    Attributes:
        name: Its element's id.
        spec: Vega-Lite.
        alternative: What it shows, in words, for who does not see it.
        title: Above it.
    """

    name: str
    spec: charts.Spec
    alternative: str
    title: str = ""


def render(
    template: str,
    frame: Frame,
    *,
    shown: Mapping[str, Any],
    pictures: list[Chart],
    tips: Mapping[str, list[tuple[str, str]]],
) -> bytes:
    """Fills a template.

    Args:
        template: Its file's name.
        frame: What the page is made for.
        shown: The template's variables.
        pictures: The charts that it places.
        tips: By key of a line, what is shown when it is pointed at: names and values.
    """
    data = {
        "config": charts.CONFIG,
        "charts": [{"name": chart.name, "spec": chart.spec} for chart in pictures],
        "tips": tips,
    }
    style = _file(STYLE)
    names = (*SCRIPTS, FOLLOWS) if frame.version else SCRIPTS
    scripts = [vega_bundle(), *map(_file, names)]
    page = (
        _environment()
        .get_template(template)
        .render(
            **shown,
            frame=frame,
            style=Markup(style),
            scripts=[Markup(script) for script in scripts],
            data=embedded(data),
            policy=policy(style, scripts, follows=bool(frame.version)),
        )
    )
    # What is no text at all, half of a surrogate pair, must not make the report fail.
    return page.encode(errors="replace")


def embedded(document: Any) -> Markup:
    """JSON that can stand in a `<script>` element.

    It holds no markup, and nothing in it ends the element. Other than ASCII is escaped, line
    separators among it.
    """
    content = json.dumps(document, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        content = content.replace(character, f"\\u{ord(character):04x}")
    return Markup(content)


def policy(style: str, scripts: list[str], *, follows: bool) -> str:
    """The page's Content-Security-Policy; one that `follows` may ask its own server for news."""
    allowed = " ".join(_hash(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_hash(style)}; "
        f"base-uri 'none'; form-action 'none'{CONNECT if follows else ''}"
    )


@functools.cache
def vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script. Putting it together takes a few seconds."""
    import vl_convert

    return vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub forgets the default


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _file(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({function.__name__: function for function in FILTERS})
    return environment
