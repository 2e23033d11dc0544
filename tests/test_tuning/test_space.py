"""What can be searched, and how points are picked."""

from __future__ import annotations

import collections

import pytest

from job.config.resolve import resolve
from job.errors import InputError
from tuning.config import SweepConfig
from tuning.records import FAILED, FINISHED, STOPPED, Outcome, Plan
from tuning.space.search import GridSearch, OptunaSearch, RandomSearch
from tuning.space.space import DEFAULT, POWERS, Space, parse_space, read_space

DEFAULT_SPACE = parse_space(DEFAULT, "default")
NESTED = """
[batch_size]
values = [64, 256]

[optimizer]
values = ["momentum", "adam"]

[[learning_rate]]
when = { optimizer = "momentum" }
low = 0.01
high = 0.1
log = true
points = 2
with_batch = "linear"

[[learning_rate]]
when = { optimizer = ["adam", "rmsprop"] }
values = [0.001]

[weight_decay]
when = { optimizer = "adam", batch_size = 64 }
values = [0.0, 0.01]
"""


def file_with(tmp_path, content: str, suffix: str = "toml") -> str:
    path = tmp_path / f"space.{suffix}"
    path.write_text(content)
    return str(path)


def test_every_point_of_the_default_space_is_a_valid_run():
    search = RandomSearch(DEFAULT_SPACE, {}, 7)
    for number in range(300):
        drawn, settings = search.point(number)
        assert settings.keys() == {"batch_size", "optimizer", "learning_rate"}
        config = resolve(settings)
        (way,) = [p for p in DEFAULT_SPACE.parameters if p.key in drawn and p.low]
        assert way.when == {"optimizer": (config.optimizer,)}
        assert way.low <= drawn[way.key] <= way.high
        scale = (config.batch_size / 128) ** POWERS[way.with_batch]
        assert config.learning_rate == pytest.approx(drawn[way.key] * scale, rel=1e-5)


def test_random_points_depend_on_seed_and_number_alone():
    def points(seed):
        return [RandomSearch(DEFAULT_SPACE, {}, seed).point(n)[1] for n in (5, 3, 4)]

    search = RandomSearch(DEFAULT_SPACE, {}, 7)
    in_turn = [search.point(n)[1] for n in range(6)]
    assert points(7) == [in_turn[5], in_turn[3], in_turn[4]]
    assert points(8) != points(7)


def test_random_points_use_the_whole_space():
    search = RandomSearch(DEFAULT_SPACE, {}, 1)
    counts = collections.Counter(
        settings[field]
        for field in ("optimizer", "batch_size")
        for _, settings in (search.point(n) for n in range(1200))
    )
    # Four standard deviations of a binomial count.
    assert all(abs(counts[o] - 240) < 56 for o in ("sgd", "momentum", "rmsprop", "adam", "muon"))
    assert all(abs(counts[b] - 200) < 52 for b in (16, 32, 64, 128, 256, 512))


def test_a_grid_holds_every_combination_once(tmp_path):
    grid = GridSearch(read_space(file_with(tmp_path, NESTED)), {})
    points = [grid.point(i)[1] for i in range(len(grid))]
    assert points == [
        {"batch_size": 64, "optimizer": "momentum", "learning_rate": 0.005},
        {"batch_size": 64, "optimizer": "momentum", "learning_rate": 0.05},
        {"batch_size": 64, "optimizer": "adam", "learning_rate": 0.001, "weight_decay": 0.0},
        {"batch_size": 64, "optimizer": "adam", "learning_rate": 0.001, "weight_decay": 0.01},
        {"batch_size": 256, "optimizer": "momentum", "learning_rate": 0.02},
        {"batch_size": 256, "optimizer": "momentum", "learning_rate": 0.2},
        {"batch_size": 256, "optimizer": "adam", "learning_rate": 0.001},
    ]
    assert grid.point(len(grid)) is None


def test_what_is_given_is_not_searched_and_conditions_look_at_it():
    space = DEFAULT_SPACE.without({"optimizer": "adam"})
    _, settings = RandomSearch(space, {"optimizer": "adam"}, 1).point(0)
    assert settings.keys() == {"batch_size", "learning_rate"}
    rate = settings["learning_rate"] / (settings["batch_size"] / 128) ** 0.5
    assert 3e-4 <= rate <= 1e-2


def test_a_space_survives_its_file(tmp_path):
    space = read_space(file_with(tmp_path, NESTED))
    assert parse_space(space.to_document(), "again") == space
    assert parse_space(DEFAULT_SPACE.to_document(), "again") == DEFAULT_SPACE


def test_toml_and_yaml_say_the_same(tmp_path):
    yaml = "learning_rate: {low: 0.01, high: 0.1, log: true}\nbatch_size: {values: [32, 64]}\n"
    toml = "[learning_rate]\nlow = 0.01\nhigh = 0.1\nlog = true\n[batch_size]\nvalues = [32, 64]\n"
    assert read_space(file_with(tmp_path, yaml, "yaml")) == read_space(file_with(tmp_path, toml))


def test_whole_numbers_stay_whole(tmp_path):
    space = read_space(file_with(tmp_path, "[batch_size]\nlow = 16\nhigh = 512\nlog = true\n"))
    values = [RandomSearch(space, {}, 1).point(n)[1]["batch_size"] for n in range(50)]
    assert all(type(value) is int and 16 <= value <= 512 for value in values)
    assert len(set(values)) > 20


SIX = {"batch_size": {"values": [16, 32, 64, 128, 256, 512]}}


@pytest.mark.parametrize("search", [RandomSearch, OptunaSearch])
def test_no_settings_are_tried_twice_and_a_small_space_ends(search):
    space = parse_space(SIX, "six")
    assert space.size({}) == 6
    begun, plans = search(space, {}, 1), []
    for number in range(6):
        drawn, settings = begun.point(number)
        plans.append(Plan(number=number, settings=settings, seed=1, drawn=drawn))
    assert {plan.settings["batch_size"] for plan in plans} == {16, 32, 64, 128, 256, 512}
    assert begun.point(6) is None
    # The same when it goes on after four.
    again = search(space, {}, 1)
    for plan in plans[:4]:
        again.again(plan)
    assert {again.point(n)[1]["batch_size"] for n in (4, 5)} == {
        plan.settings["batch_size"] for plan in plans[4:]
    }
    assert again.point(6) is None


@pytest.mark.parametrize(
    ("document", "size"),
    [
        ({"batch_size": {"low": 3, "high": 5}}, 3),
        ({"batch_size": {"low": 1, "high": 5000}}, None),
        ({"learning_rate": {"low": 0.1, "high": 0.2}}, None),
        # Weight decay counts for one of two optimizers.
        (
            {
                "optimizer": {"values": ["sgd", "adam"]},
                "weight_decay": {"when": {"optimizer": "adam"}, "values": [0.1, 0.2]},
            },
            3,
        ),
    ],
)
def test_how_many_settings_there_are(document, size):
    assert parse_space(document, "it").size({}) == size


def test_a_range_that_never_applies_is_no_reason_to_search_for_ever():
    document = {"learning_rate": {"low": 0.1, "high": 0.2, "when": {"optimizer": "adam"}}, **SIX}
    search = RandomSearch(parse_space(document, "it"), {"optimizer": "sgd"}, 1)
    assert [search.point(number) is None for number in range(7)] == [False] * 6 + [True]


def test_equal_values_are_one():
    document = {"batch_size": {"values": [64, "64", 64.0, 32]}}
    (way,) = parse_space(document, "new").parameters
    assert way.values == (64, 32)
    # A sweep that was begun with three of them draws as it did.
    (way,) = parse_space(document, "kept", is_kept=True).parameters
    assert way.values == (64, 64, 64, 32)


def test_a_key_that_stands_twice_is_refused_by_name(tmp_path):
    twice = "batch_size: {values: [32]}\nbatch_size: {values: [64]}\n"
    with pytest.raises(InputError, match="key 'batch_size' stands twice"):
        read_space(file_with(tmp_path, twice, "yaml"))


BAD = {
    "an unknown setting": ("[learning_rat]\nvalues = [1]", "did you mean 'learning_rate'"),
    "a value that is none": ("[batch_size]\nvalues = [0]", "batch_size: 0: must be between"),
    "a choice that is none": ("[optimizer]\nvalues = ['adan']", "did you mean 'adam'"),
    "no values": ("[optimizer]\nvalues = []", "a list of at least one"),
    "an unknown key": ("[batch_size]\nvalue = [1]", "did you mean 'values'"),
    "no range": ("[batch_size]\nlow = 16", "give `values`, or `low` and `high`"),
    "a range upside down": ("[learning_rate]\nlow = 0.1\nhigh = 0.01", "must be below"),
    "a range of names": ("[optimizer]\nlow = 'adam'\nhigh = 'sgd'", "has no range"),
    "a range of a switch": ("[xla]\nlow = false\nhigh = true", "has no range"),
    "the logarithm of 0": (
        "[weight_decay]\nlow = 0\nhigh = 0.1\nlog = true",
        "must be above 0 where `log`",
    ),
    "both at once": ("[batch_size]\nvalues = [1]\nlow = 1", "leave one out"),
    "what a sweep sets": ("[seed]\nvalues = [1, 2]", "can't be searched"),
    "what holds for a process": ("[deterministic]\nvalues = [true]", "can't be searched"),
    "what decides nothing": ("[storage]\nvalues = ['a']", "can't be searched"),
    "a circle": (
        "[batch_size]\nvalues=[1]\nwhen={optimizer='sgd'}\n"
        "[optimizer]\nvalues=['sgd']\nwhen={batch_size=1}",
        "depend on each other",
    ),
    "a condition on nothing": ("[batch_size]\nvalues=[1]\nwhen={optimzer='sgd'}", "'optimizer'"),
    "an unknown scale": (
        "[learning_rate]\nlow=0.1\nhigh=1\nwith_batch='cubic'",
        "choose one of linear, sqrt",
    ),
    "nothing": ("", "names no setting"),
    "no TOML": ("[batch_size", "is no valid toml"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_space_is_one_line_that_names_the_file_and_the_fix(case, tmp_path):
    content, why = BAD[case]
    path = file_with(tmp_path, content)
    with pytest.raises(InputError) as error:
        read_space(path)
    assert str(error.value).startswith(f"--space {path!r}: ")
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_none_is_named(tmp_path):
    with pytest.raises(InputError, match=r"--space .*can't be read: No such file"):
        read_space(str(tmp_path / "none.toml"))
    with pytest.raises(InputError, match=r"name a \.toml, \.yaml or \.yml file"):
        read_space(file_with(tmp_path, "{}", "json"))


def outcome(accuracy: float, state: str = FINISHED) -> Outcome:
    from job.runs.state import EpochRow

    row = EpochRow(
        epoch=1,
        loss=0.1,
        accuracy=accuracy,
        val_loss=1 - accuracy,
        val_accuracy=accuracy,
        seconds=1.0,
        images_per_second=1.0,
    )
    return Outcome(state=state, history=(row,))


def optuna_search(space: Space) -> OptunaSearch:
    return OptunaSearch(space, {}, 3)


def test_optuna_learns_from_what_ended():
    """Of two optimizers one is always better: it is picked more and more often."""
    search = optuna_search(DEFAULT_SPACE)
    picked = []
    for number in range(60):
        drawn, settings = search.point(number)
        resolve(settings)
        picked.append(settings["optimizer"])
        plan = Plan(number=number, settings=settings, seed=1, drawn=drawn)
        good = settings["optimizer"] == "adam"
        search.ended(plan, outcome(0.9 if good else 0.5, FINISHED if good else STOPPED))
    assert picked[30:].count("adam") > 2 * picked[:10].count("adam")
    assert picked[30:].count("adam") > 15


def test_optuna_takes_up_what_it_picked_before():
    first = optuna_search(DEFAULT_SPACE)
    plans = []
    for number in range(5):
        drawn, settings = first.point(number)
        plans.append(Plan(number=number, settings=settings, seed=1, drawn=drawn))
    second = optuna_search(DEFAULT_SPACE)
    for plan in plans:
        second.again(plan)
    for plan in plans:
        second.ended(plan, outcome(0.5, FAILED if plan.number == 2 else FINISHED))
    assert [trial.params for trial in second.trials()] == [plan.drawn for plan in plans]
    second.point(5)


def test_the_searches_are_those_of_the_settings():
    for name in ("random", "grid", "optuna"):
        assert SweepConfig(search=name).search == name
    with pytest.raises(InputError, match=r"--search 'randm': .*did you mean 'random'"):
        SweepConfig(search="randm")


def test_the_space_of_a_sweep_that_was_begun_is_read_beyond_todays_limits():
    document = {"learning_rate": {"values": [1e9], "when": {"batch_size": [70_000]}}}
    with pytest.raises(InputError, match="must be"):
        parse_space(document, "new")
    (way,) = parse_space(document, "kept", is_kept=True).parameters
    assert (way.values, way.when) == ((1e9,), {"batch_size": (70_000,)})
