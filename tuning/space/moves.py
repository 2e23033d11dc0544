"""Where a setting is to be searched next, by where the best trials of a sweep have it.

At an edge of what was tried it is moved beyond; close together it is narrowed. Both come by chance
as well. Of the best `k` trials of a sweep that draws evenly, at least `h` have a setting that
matters nothing in a part that is the share `p` of its range as often as the binomial tail of `h`,
`k` and `p` says; and all of them have it within a share `w` of its range, wherever that is, in
`k w^(k-1) - (k-1) w^k` of sweeps, which is how the range of `k` uniform values is distributed
(David & Nagaraja, Order Statistics, 2003). What chance does more often than `CLEAR` is not said.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

from job.errors import InputError
from tuning.space.space import SearchRange, Space, parse_space

# The share of a range that is its edge, and the probability from which on chance will do.
EDGE = 0.1
CLEAR = 0.05
# So much of a range is added beyond an edge, the first of these that the setting takes, and on both
# sides of what lies close together.
BEYOND = (0.5, 0.25, 0.125)
AROUND = 0.1
# Steps of a list that differ by less are the same.
SAME_STEP = 0.05
# How finely an even draw is looked at.
DRAWS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Move:
    """What follows for one way of choosing a setting.

    Attributes:
        says: In words.
        way: What to search next; the same as before where the setting takes nothing beyond.
    """

    says: str
    way: SearchRange


def move_of(way: SearchRange, found: Sequence[Any], *, is_grid: bool) -> Move | None:
    """What follows from the values of the best trials; None where nothing does.

    Args:
        way: How the setting was chosen.
        found: What was drawn for each of the best trials that have it.
        is_grid: It was chosen on a grid.
    """
    if way.values:
        return _of_list(way, found) if len(way.values) > 1 else None
    return _of_range(way, found, is_grid)


def of_best(hits: int, best: int) -> str:
    """So many of the best trials, in words."""
    return f"{'all' if hits == best else f'{hits} of'} the best {best} trials"


def name_of(way: SearchRange) -> str:
    """A setting in words, with the condition under which it is chosen so."""
    conditions = (f"{k} {' or '.join(map(str, v))}" for k, v in way.when.items())
    with_them = f" ({', '.join(conditions)})" if way.when else ""
    return f"{way.field}{with_them}".replace("_", " ")


def _of_list(way: SearchRange, found: Sequence[Any]) -> Move | None:
    count, best = len(way.values), len(found)
    if all(type(value) in (int, float) for value in way.values):
        levels = sorted(way.values)
        for upward, extreme in ((False, "smallest"), (True, "largest")):
            ordered = levels if upward else levels[::-1]
            hits = sum(value == ordered[-1] for value in found)
            chance = at_least(hits, best, 1 / count)
            if hits > best / 2 and chance <= CLEAR:
                at = f"{of_best(hits, best)} have {ordered[-1]}, the {extreme} tried"
                # One beyond, and back to the one before all that the best have.
                kept = ordered[max(0, min(map(ordered.index, found)) - 1) :]
                values = tuple(sorted([*kept, _beyond(ordered)]))
                return _moved(way, at, chance, [dataclasses.replace(way, values=values)])
        around = levels[max(0, levels.index(found[0]) - 1) : levels.index(found[0]) + 2]
    else:
        around = [found[0]]
    chance = count ** (1.0 - best)
    if any(value != found[0] for value in found) or chance > CLEAR:
        return None
    at = f"{of_best(best, best)} have {found[0]}"
    return _moved(way, at, chance, [dataclasses.replace(way, values=tuple(around))])


def _beyond(ordered: Sequence[float]) -> float:
    """The value that continues a list: by the ratio where that is the same all along."""
    last, before = ordered[-1], ordered[-2]
    ratios = [b / a for a, b in itertools.pairwise(ordered)] if min(ordered) > 0 else []
    is_even = bool(ratios) and max(ratios) <= min(ratios) * (1 + SAME_STEP)
    value = last * last / before if is_even else 2 * last - before
    return round(value) if isinstance(last, int) else float(f"{value:.3g}")


def _of_range(way: SearchRange, found: Sequence[Any], is_grid: bool) -> Move | None:
    places, best = [way.place(value) for value in found], len(found)
    steps = ((step + 0.5) / DRAWS for step in range(DRAWS))
    draws = [way.place(value) for value in (way.grid() if is_grid else map(way.at, steps))]
    for upward, extreme in ((False, "lowest"), (True, "highest")):

        def is_near(place: float, upward: bool = upward) -> bool:
            return place >= 1 - EDGE if upward else place <= EDGE

        hits = sum(map(is_near, places))
        chance = at_least(hits, best, sum(map(is_near, draws)) / len(draws))
        if hits > best / 2 and chance <= CLEAR:
            at = f"{of_best(hits, best)} lie in the {extreme} tenth of {_range_text(way)}"
            return _moved(way, at, chance, [_shifted(way, places, upward, b) for b in BEYOND])
    low, high = min(places), max(places)
    # What can be drawn in a few places only is close together more often.
    width = max(high - low, 1 / len(set(draws)))
    chance = all_within(width, best)
    if chance > CLEAR:
        return None
    at = f"{of_best(best, best)} lie between {min(found):.3g} and {max(found):.3g}"
    return _moved(way, at, chance, [_between(way, low - AROUND, high + AROUND)])


def _shifted(way: SearchRange, places: Sequence[float], upward: bool, beyond: float) -> SearchRange:
    """The range beyond one of its ends, without the half in which none of the best lies."""
    if upward:
        return _between(way, 0.0 if min(places) < 0.5 else 0.5, 1 + beyond, inside=False)
    return _between(way, -beyond, 1.0 if max(places) > 0.5 else 0.5, inside=False)


def _between(way: SearchRange, low: float, high: float, *, inside: bool = True) -> SearchRange:
    """The range between two places of it, its own ends where they would lie beyond."""
    if inside:
        low, high = max(low, 0.0), min(high, 1.0)

    def value(place: float) -> float:
        if place in (0.0, 1.0):
            return way.high if place else way.low
        if way.log:
            found = way.low * (way.high / way.low) ** place
        else:
            found = way.low + (way.high - way.low) * place
        return round(found) if way.is_integer else float(f"{found:.2g}")

    return dataclasses.replace(way, low=value(low), high=value(high))


def _moved(way: SearchRange, at: str, chance: float, offered: Sequence[SearchRange]) -> Move:
    """The first of the offered that the setting takes."""
    likely = "less than 0.1 %" if chance < 0.001 else f"{chance:.1%}".replace("%", " %")
    known = f"{name_of(way)}: {at} (by chance in {likely} of sweeps)"
    for new in offered:
        if new != way and _is_taken(new):
            return Move(says=f"{known}. Next: {_range_text(new)}.", way=new)
    return Move(says=f"{known}. The setting takes nothing beyond.", way=way)


def _is_taken(way: SearchRange) -> bool:
    """Whether a space can have it."""
    try:
        parse_space(Space(parameters=(way,)).to_document(), "next")
    except InputError:
        return False
    return True


def _range_text(way: SearchRange) -> str:
    if way.values:
        return ", ".join(map(str, way.values))
    return f"{way.low:g} to {way.high:g}"


def at_least(hits: int, of: int, share: float) -> float:
    """How often at least so many of several independent draws come from a share of all."""
    return sum(math.comb(of, n) * share**n * (1 - share) ** (of - n) for n in range(hits, of + 1))


def all_within(width: float, of: int) -> float:
    """How often several even draws all lie within such a share of their range, wherever that is."""
    return of * width ** (of - 1) - (of - 1) * width**of
