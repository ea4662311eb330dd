"""`phyla compare`: what its statistics say, what its arms are, and that its runs are those that it reports."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from scipy import stats

import phyla
import phyla.cli.compare as command
import scripts
from phyla import launched
from phyla.arms import AS_WRITTEN, CONTROLS, Description, read_description, slug
from phyla.cli import main
from phyla.compare import bootstrap, contrast, holm, improvement, iqm, seeds_needed, signed_rank, summary
from phyla.comparison import Arm, Comparison, Trial
from phyla.events import Born
from phyla.launch import cells
from phyla.launch.cells import Cells, Standing, lock
from phyla.launched import Cell
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Perturb
from phyla.strategies.truncation import Truncation

RNG = np.random.default_rng(0)

# Statistics -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 20))
def test_the_interquartile_mean_is_the_mean_of_the_middle_half(n: int) -> None:
    """Each score four times over is the same distribution, and its quarters are whole numbers of scores."""
    scores = RNG.normal(size=n)
    assert iqm(scores) == pytest.approx(stats.trim_mean(np.repeat(scores, 4), 0.25))
    if n % 4 == 0:
        assert iqm(scores) == pytest.approx(stats.trim_mean(scores, 0.25))


def test_the_interquartile_mean_of_few_scores_is_as_documented() -> None:
    assert iqm([3.0]) == 3.0
    assert iqm([1.0, 4.0]) == 2.5
    assert iqm([0.0, 1.0, 5.0]) == pytest.approx(0 / 6 + 1 * 2 / 3 + 5 / 6)
    assert iqm([[1, 2, 3, 100], [0, 0, 4, 4]]).tolist() == [2.5, 2.0]


def test_a_run_without_a_score_is_the_worst_and_not_left_out() -> None:
    assert iqm([-math.inf, 1.0, 2.0, 3.0]) == 1.5
    assert iqm([-math.inf, 1.0, 2.0]) == -math.inf
    one = summary([-math.inf, 1.0, 2.0, 3.0])
    assert (one.value, one.low) == (1.5, -math.inf)


def test_the_bootstrap_is_the_same_for_the_same_scores_and_holds_the_value() -> None:
    scores = RNG.normal(size=8).tolist()
    one = summary(scores)
    assert one == summary(scores)
    assert min(scores) <= one.low < one.value < one.high <= max(scores)


def test_the_bootstrap_agrees_with_scipys() -> None:
    scores = RNG.normal(size=12)
    found = stats.bootstrap((scores,), iqm, n_resamples=5_000, method="percentile", rng=np.random.default_rng(1))
    ours = bootstrap(lambda places: iqm(scores[places]), 12, 5_000)
    assert (ours.low, ours.high) == pytest.approx(tuple(found.confidence_interval), abs=0.08)


def test_intervals_of_eight_runs_hold_the_truth_nearly_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    held = [one.low <= 0 <= one.high for one in (summary(rng.normal(size=8).tolist(), 500) for _ in range(400))]
    assert 0.90 < np.mean(held) < 0.98


def test_the_probability_of_improvement_is_mann_whitneys() -> None:
    ours, others = RNG.integers(0, 5, 7), RNG.integers(0, 5, 9)
    expected = stats.mannwhitneyu(ours, others).statistic / (7 * 9)
    assert improvement(ours, others) == pytest.approx(expected)
    assert improvement([1, 2], [0, 0]) == 1


@pytest.mark.parametrize("n", [1, 2, 5, 8, 11])
def test_the_signed_rank_test_is_scipys_where_there_are_no_ties(n: int) -> None:
    differences = RNG.normal(0.4, 1, size=n)
    assert signed_rank(differences).p == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)


def test_the_signed_rank_test_counts_all_signs_with_ties_zeros_and_infinities() -> None:
    differences = np.array([1.0, -1.0, 2.0, 2.0, 0.0, math.inf, 3.0, -0.5])
    nonzero = differences[differences != 0]
    ranks = stats.rankdata(np.abs(nonzero))
    sums = [sum(itertools.compress(ranks, signs)) for signs in itertools.product((0, 1), repeat=len(ranks))]
    above = sum(ranks[nonzero > 0])
    expected = 2 * min(np.mean([s <= above for s in sums]), np.mean([s >= above for s in sums]))
    assert signed_rank(differences).p == pytest.approx(expected)
    assert signed_rank([0.0, 0.0]).p == 1


def test_holm_adjusts_as_in_his_paper() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_arms_that_are_the_same_are_told_apart_no_more_often_than_promised() -> None:
    rng = np.random.default_rng(4)
    told = 0
    for _ in range(400):
        first, *others = rng.normal(size=(4, 8))
        ps = holm([signed_rank(other - first).p for other in others])
        told += min(ps) <= 0.05
    assert told / 400 < 0.05 + 2 * math.sqrt(0.05 * 0.95 / 400)


def test_what_is_clearly_better_is_called_so_and_what_cannot_be_told_too() -> None:
    base = list(np.arange(8.0))
    up, down, same = [x + 1 for x in base], [x - 1 for x in base], base
    found = contrast([(up, base), (down, base), (same, base)])
    assert [one.verdict for one in found] == ["better", "worse", "alike"]
    assert found[0].difference.value == pytest.approx(1)
    assert (found[0].difference.low, found[0].difference.high) == pytest.approx((1, 1))  # of pairs, not of two groups
    assert [one.verdict for one in contrast([(up[:5], base[:5])])] == ["too few"]
    assert [seeds_needed(arms) for arms in (1, 2, 4)] == [6, 7, 8]
    assert contrast([(up[:6], base[:6])])[0].verdict == "better"


# Arms -----------------------------------------------------------------------------------------------------------------

SPACE = {"lr": phyla.Float(0.1, 1.0)}


def stays(view: Any, member: int, rng: Any) -> phyla.Decision:
    return phyla.Decision(phyla.KEEP, view.newest(member).hypers)


def population(**given: Any) -> phyla.Population:
    return phyla.Population("run", SPACE, **{"size": 4, "intervals": 6, "seed": 0, "journal": "memory", **given})


@pytest.fixture
def in_cell(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """What a population of a script has for arguments, in a cell of this arm."""

    def arguments(arm: str, *, seed: int = 5, name: str = "run", **given: Any) -> Any:
        for key, value in Cell(name, arm, seed, "/somewhere").variable().items():
            monkeypatch.setenv(key, value)
        return population(**given)._arguments

    return arguments


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Description]:
    """What a script's population says that there is to compare."""

    def describe(**given: Any) -> Description:
        monkeypatch.setenv(launched.DESCRIBE, str(tmp_path / "description"))
        with pytest.raises(SystemExit):
            population(**given)
        monkeypatch.delenv(launched.DESCRIBE)
        return read_description(tmp_path / "description")

    return describe


@pytest.mark.parametrize(
    ("arm", "strategy"),
    [
        (AS_WRITTEN, Evolve(Truncation(0.2), Perturb(0.8, 1.2))),
        ("random search", Evolve(None, Perturb(0.8, 1.2))),
        ("lucky seeds", Evolve(Truncation(0.2), None)),
        ("weights only", Evolve(Truncation(0.2), Perturb(0.8, 1.2), "weights")),
        ("hypers only", Evolve(Truncation(0.2), Perturb(0.8, 1.2), "hypers")),
        ("mild", Evolve(Truncation(0.5), Perturb(0.8, 1.2))),
        ("own", stays),
    ],
)
def test_an_arm_is_the_script_but_for_what_it_changes(in_cell: Callable[..., Any], arm: str, strategy: Any) -> None:
    arms = {"mild": {"exploit": Truncation(0.5)}, "own": {"strategy": stays}}
    assert in_cell(arm, arms=arms).strategy == strategy
    # Evolve given as a whole is taken apart in the same way.
    whole = in_cell(arm, arms=arms, strategy=Evolve(Truncation(0.2), Perturb(0.8, 1.2)))
    assert whole.strategy == strategy


def test_the_controls_of_a_whole_strategy(in_cell: Callable[..., Any], described: Callable[..., Description]) -> None:
    given = {"strategy": stays, "exploit": Truncation(0.4)}
    assert list(described(**given).arms) == [AS_WRITTEN, "random search", "lucky seeds"]
    assert described(**given).arms["lucky seeds"].changes["exploit"] == "Truncation(fraction=0.4)"
    assert in_cell(AS_WRITTEN, **given).strategy is stays
    assert in_cell("random search", **given).strategy.exploit is None
    assert in_cell("lucky seeds", **given).strategy == Evolve(Truncation(0.4), None)


def test_a_cell_decides_about_seed_place_and_budget(in_cell: Callable[..., Any]) -> None:
    found = in_cell("random search", target=0.9, seconds=10, fresh=True, progress=True, threads=2)
    assert (found.seed, found.path, found.journal) == (5, "/somewhere", None)
    assert (found.settings.target, found.seconds, found.fresh, found.progress) == (None, None, False, False)
    assert (found.settings.threads, in_cell(AS_WRITTEN).settings.threads) == (2, 1)


def test_outside_a_comparison_arms_change_nothing() -> None:
    assert population(arms={"mild": {"exploit": Truncation(0.5)}})._arguments == population()._arguments


def test_what_a_script_says_is_what_its_cells_are_created_with(
    in_cell: Callable[..., Any], described: Callable[..., Description]
) -> None:
    arms = {"slow": {"ready": 3}, "small": {"size": 2, "intervals": 12}}
    found = described(arms=arms, target=1.0)
    assert list(found.arms) == [AS_WRITTEN, *CONTROLS, *arms]
    assert found.ignored == ["target"]
    assert found.arms["small"].changes == {"size": "2", "intervals": "12"}
    for arm, one in found.arms.items():
        assert one.settings == in_cell(arm, seed=0, arms=arms, target=1.0).settings


def test_a_comparison_is_of_one_population(in_cell: Callable[..., Any]) -> None:
    with pytest.raises(phyla.SettingsError, match=r"compares one population of a script, here 'first'; .*'run' too"):
        in_cell(AS_WRITTEN, name="first")


def test_a_comparison_needs_a_budget(described: Callable[..., Description]) -> None:
    with pytest.raises(phyla.SettingsError, match=r"equal cost.*intervals="):
        described(intervals=None, target=0.5)


BAD_ARMS = [
    (["pb2"], r"arms=\['pb2'\]; expected a dict"),
    ({"slow": 5}, r"arms\['slow'\] is 5; expected the arguments that differ"),
    ({"slow": {"lr": 5}}, r"arms\['slow'\] changes 'lr'; an arm may change exploit, explore"),
    ({"slow": {"mode": "min"}}, "changes 'mode'; an arm may change"),
    ({"slow": {"ready": 0}}, r"arms\['slow'\]: ready=0; expected a whole number"),
    ({"one": {"exploit": Truncation}}, r"arms\['one'\]: exploit=Truncation is a class"),
    (
        {"one": {"strategy": stays, "explore": None}},
        "strategy, which is a whole decision, and explore, which is a part",
    ),
    ({"big": {"size": 8}}, "8 members for 6 intervals, and the script 4 for 6: .* at equal cost"),
    ({"long": {"intervals": None}}, r"arms\['long'\]: when does the run end"),
    ({"random search": {"ready": 2}}, "'random search', which is taken"),
    ({"Lucky-Seeds": {"ready": 2}}, "'Lucky-Seeds', which is taken: there is 'lucky seeds' already"),
    ({"a,b": {"ready": 2}}, "expected a few words without a comma"),
    ({"..": {"ready": 2}}, "expected a few words"),
    ({3: {"ready": 2}}, "the name 3"),
]


@pytest.mark.parametrize(("arms", "message"), BAD_ARMS)
def test_an_arm_that_cannot_work_is_refused_when_the_population_is_made(arms: Any, message: str) -> None:
    with pytest.raises(phyla.SettingsError, match=message):
        population(arms=arms)


@pytest.mark.parametrize("name", ["..", "../../etc", "a/b", "/", ".hidden", "a\x1b[2J", "ö", "a  b", "A.B"])
def test_an_arms_directory_is_one_plain_name(name: str) -> None:
    assert "/" not in slug(name)
    assert not slug(name).startswith(".")
    assert slug(name).isascii()
    assert slug(name).isprintable()


# The command line -----------------------------------------------------------------------------------------------------

MISUSES = [
    ([], "which script"),
    (["nope.py"], "there is no script nope.py"),
    (["--seeds", "0", "there.py"], "--seeds 0: expected how many"),
    (["--seeds", "3,3", "there.py"], "all different"),
    (["--seeds", "-1", "there.py"], "--seeds -1"),
    (["--workers", "0", "there.py"], "--workers 0: expected 1 or more"),
    (["--mode", "best", "--metric", "x", "there.py"], "--mode best: expected max or min"),
    (["--mode", "min", "there.py"], "--mode says whether more or less of --metric is better"),
    (["there.py", "there.py"], "expected scripts of different names"),
    (["--arms", "pb2", "there.py", "other.py"], "of several scripts each is an arm"),
]


@pytest.mark.parametrize(("arguments", "message"), MISUSES)
def test_a_command_line_that_cannot_work(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("there.py", "other.py"):
        scripts.write(tmp_path, "", name)
    assert main(["compare", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_seeds_are_a_number_or_a_list() -> None:
    assert command._seeds("3") == [0, 1, 2]
    assert command._seeds("9,3,5") == [3, 5, 9]
    assert command._seeds("7,") == [7]


def test_scripts_stand_first_and_what_follows_them_is_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.py", "b.py"):
        scripts.write(tmp_path, "", name)
    python = sys.executable
    assert command._commands("a.py", None, ["--epochs", "b.py"]) == {"a": (python, "a.py", "--epochs", "b.py")}
    assert command._commands("a.py", None, ["b.py", "3"]) == {"a": (python, "a.py", "3"), "b": (python, "b.py", "3")}
    assert command._commands("a.py", None, ["--", "b.py"]) == {"a": (python, "a.py", "b.py")}
    assert command._commands("x", "pack.train", ["y"]) == {"train": (python, "-m", "pack.train", "x", "y")}


def planned(found: Description, arms: str | None = None) -> list[str]:
    return [arm.name for arm in command._planned({"s": ("python", "s.py")}, {"s": found}, arms)]


def test_which_arms_are_compared(described: Callable[..., Description], capsys: Any) -> None:
    found = described(arms={"slow": {"ready": 3}})
    assert planned(found) == [AS_WRITTEN, "random search", "lucky seeds", "slow"]
    assert planned(found, "Random-Search, slow,as written,slow") == [AS_WRITTEN, "random search", "slow"]
    with pytest.raises(command.Misuse, match=r"--arms names 'pb2'; s has as written, random search, .*, slow"):
        planned(found, "slow,pb2")
    assert capsys.readouterr().err == ""


def test_arms_that_do_the_same_are_one(described: Callable[..., Description], capsys: Any) -> None:
    found = described(exploit=None, arms={"slow": {"ready": 3}, "again": {"compare": "progress"}})
    assert planned(found) == [AS_WRITTEN, "slow"]
    assert "lucky seeds is left out: for this script it is the same as as written" in capsys.readouterr().err


def test_scripts_whose_scores_differ_in_kind_are_not_compared(described: Callable[..., Description]) -> None:
    both = {"a": described(), "b": described(mode="min")}
    with pytest.raises(phyla.SettingsError, match="different modes, 'max', 'min'"):
        command._planned({"a": ("python", "a.py"), "b": ("python", "b.py")}, both, None)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("print('hello')", "it makes no phyla.Population: there is nothing to compare"),
        ("import nonesuch", "(?s)it failed before it made a phyla.Population:.*line 1.*No module named 'nonesuch'"),
    ],
)
def test_a_script_that_makes_no_population(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(phyla.SettingsError, match=message):
        command.ask((sys.executable, str(scripts.write(tmp_path, source))), "it")


# Real runs ------------------------------------------------------------------------------------------------------------

SCRIPT = """
    import json, os, signal
    from pathlib import Path
    import numpy as np, phyla
    _, arm, seed, _ = json.loads(os.environ.get("PHYLA_CELL", "[0, 0, 0, 0]"))
    def comes(signal):
        return Path(f"{signal}.{seed}").exists() and not Path(f"{signal}.{seed}").unlink()
    population = phyla.Population(
        "run", {"lr": phyla.Float(0.01, 1.0, log=True)}, size=4, intervals=4, seed=0, arms={"unlucky": {"ready": 2}}
    )
    for member in population:
        w = member.state(lambda newborn: np.full(3, 2.0))
        w = w - member["lr"] * (w + 0.3 * np.random.normal(size=3))
        if (arm, seed) == ("unlucky", 1):
            raise ValueError("no luck")
        if member.interval == 2 and comes("SIGKILL"):
            os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        if member.interval == 3 and comes("SIGINT"):
            os.kill(os.getppid(), signal.SIGINT)
        steps = 10 if arm == "unlucky" else 5
        member.report(-float(w @ w), w, steps=steps, metrics={"test": float(abs(w).sum())})
    if population.primary:
        Path("primary").touch()
"""
BOTH = ("--arms", "as written,unlucky", "--json")


class Said(NamedTuple):
    """What a command has printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> Any:
        return json.loads(self.out)


def compare(folder: Path, *options: str, args: Sequence[str] = ()) -> Said:
    """`phyla compare` of the script in this folder, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["compare", *options, "script.py", *args])
    return Said(code, out.getvalue(), err.getvalue())


class Study:
    """A comparison of two arms from two seeds, of which a run fails."""

    def __init__(self, folder: Path):
        self.folder, self.script = folder, scripts.write(folder, SCRIPT)
        self.place = folder / "runs/compare-script"
        self.said = compare(folder, "--seeds", "2", *BOTH)
        self.result = self.said.result
        self.description = command.ask((sys.executable, str(self.script)), "script")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return Study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def study(first: Study, monkeypatch: pytest.MonkeyPatch) -> Study:
    """The study; its script is not asked again what there is to compare."""
    monkeypatch.setattr(command, "ask", lambda command, what: first.description)
    return first


def numbers(result: Any, arm: str) -> list[tuple[Any, ...]]:
    """All that an arm's runs came to, but for the time it took."""
    [found] = [one for one in result["arms"] if one["arm"] == arm]
    return [tuple(str(value) for key, value in run.items() if key not in ("seconds", "path")) for run in found["runs"]]


def test_what_is_printed_is_what_the_runs_hold(study: Study) -> None:
    assert [one["arm"] for one in study.result["arms"]] == ["as written", "unlucky"]
    assert json.loads((study.place / "comparison.json").read_text()) == study.result
    for arm in study.result["arms"]:
        for one in arm["runs"]:
            assert Path(one["path"]) == study.place / slug(arm["arm"]) / f"seed-{one['seed']}" / "run"
            run = phyla.open(one["path"])
            assert run.best is not None
            assert run.final is not None
            assert (one["best"], one["final"]) == (run.best.score, run.final.score)
            assert one["exploits"] == len(run.lineage().copies)
            assert one["steps"] == sum(record.steps for record in run.records)
            assert (one["intervals"], run.view.finished) == (16, True)
            assert one["curve"][-1][1] == run.best.score
            assert msgspec.to_builtins(run.settings) == {**arm["settings"], "seed": one["seed"]}
        assert arm["final"]["value"] == pytest.approx(float(iqm([one["final"] for one in arm["runs"]])))


def test_arms_of_one_seed_begin_alike_and_seeds_differ(study: Study) -> None:
    born = {
        (arm["arm"], one["seed"]): [e.hypers for e in phyla.open(one["path"]).events() if isinstance(e, Born)]
        for arm in study.result["arms"]
        for one in arm["runs"]
    }
    assert born["as written", 0] == born["unlucky", 0] != born["as written", 1]
    copies = {one["arm"]: one["exploits"] for one in study.result["arms"]}
    assert copies["as written"] > copies["unlucky"] > 0  # which is ready half as often


def test_a_cell_that_fails_is_said_with_its_log_and_the_others_go_on(study: Study) -> None:
    assert study.said.code == 1
    assert "unlucky, seed 1: failed with code 1" in study.said.err
    assert "  | ValueError: no luck" in study.said.err
    [failed] = study.result["failed"]
    assert (failed["arm"], failed["seed"]) == ("unlucky", 1)
    assert "no luck" in Path(failed["log"]).read_text()
    assert any("unlucky: without seed 1" in one for one in study.result["warnings"])
    assert [one["seeds"] for one in study.result["against"]["final"]] == [1]  # what both have


def test_unequal_cost_is_said(study: Study) -> None:
    assert [one for one in study.result["warnings"] if "equal cost" in one] == [
        "not at equal cost: unlucky trained 160 steps a run, as written 80"
    ]


def test_the_picture_is_drawn_and_a_script_does_nothing_once_in_a_comparison(study: Study) -> None:
    assert (study.place / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert not (study.folder / "primary").exists()


def test_the_same_command_trains_nothing_anew_and_says_the_same(study: Study) -> None:
    files = list(study.place.glob("*/*/run/journal.db"))
    before = [file.stat().st_mtime_ns for file in files]
    said = compare(study.folder, "--seeds", "2", "--arms", "as-written", "--json")
    assert said.code == 0
    assert numbers(said.result, "as written") == numbers(study.result, "as written")
    assert [file.stat().st_mtime_ns for file in files] == before


def test_another_metric_is_that_of_the_models_that_the_score_selects(study: Study) -> None:
    found = compare(study.folder, "--seeds", "1", *BOTH, "--metric", "test", "--mode", "min").result
    assert (found["score"], found["selected_by"], found["mode"]) == ("test", "score", "min")
    for arm in found["arms"]:
        [one] = arm["runs"]
        run = phyla.open(one["path"])
        assert run.best is not None
        assert run.final is not None
        assert (one["best"], one["final"]) == (run.best.metrics["test"], run.final.metrics["test"])  # type: ignore[index]
    said = compare(study.folder, "--seeds", "1", *BOTH, "--metric", "held-out")
    assert said.code == 1
    assert "has no such number; it has 'test'. Report it" in said.err


def test_what_people_read(study: Study, tmp_path: Path) -> None:
    picture = tmp_path / "two.svg"
    said = compare(study.folder, "--seeds", "1", *BOTH[:2], "--plot", str(picture))
    assert said.code == 0
    assert said.out.startswith("compare-script  2 arms from 1 seed; score, higher is better\n")
    assert (
        "1 seed cannot tell unlucky from as written, whatever the scores; --seeds 6 is the least that can" in said.out
    )
    assert "it is also what members were selected by, so it flatters" in said.out
    assert "<svg" in picture.read_text()
    said = compare(study.folder, "--plot", "two.xyz")
    assert said.code == 1
    assert "there is no format .xyz" in said.err


def test_other_commands_do_not_mix_with_a_comparison(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        "script.py --epochs 3. Results of both would be mixed: --name"
        in compare(study.folder, args=["--epochs", "3"]).err
    )
    source = study.script.read_text()
    study.script.write_text(source + "# other\n")
    said = compare(study.folder)
    study.script.write_text(source)
    assert said.code == 1
    assert "script.py has changed since it was begun" in said.err
    arm = study.description.arms["unlucky"]
    arm = msgspec.structs.replace(arm, settings=msgspec.structs.replace(arm.settings, burn_in=1))
    now = msgspec.structs.replace(study.description, arms={"unlucky": arm})
    monkeypatch.setattr(command, "ask", lambda command, what: now)
    assert "unlucky, seed 0 was begun with another burn_in: 0, and now it is 1" in compare(study.folder).err


def test_a_comparison_that_is_trained_is_not_set_aside(study: Study) -> None:
    held = lock(study.place / "unlucky" / "seed-0")
    assert held is not None
    said = compare(study.folder, "--fresh")
    os.close(held)
    assert "seed-0 is being trained" in said.err
    assert not study.place.with_name("compare-script.1").exists()


def test_a_comparison_takes_no_directory_of_something_else(study: Study) -> None:
    (study.folder / "runs/digits").mkdir()
    (study.folder / "runs/digits/journal.db").touch()
    assert "is no comparison" in compare(study.folder, "--name", "digits").err


def test_interrupted_and_killed_it_goes_on_to_the_same_numbers(study: Study, tmp_path: Path) -> None:
    script = scripts.write(tmp_path, SCRIPT)
    options = ["--seeds", "2", "--arms", "as written", "--workers", "1", "--json"]

    def killed_by(name: str, seed: int) -> subprocess.CompletedProcess[str]:
        (tmp_path / f"{name}.{seed}").touch()
        command = [sys.executable, "-m", "phyla.cli", "compare", *options, script.name]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return scripts.finish(subprocess.Popen(command, cwd=tmp_path, **pipes))  # type: ignore[call-overload]

    done = killed_by("SIGINT", 0)
    assert (done.returncode, done.stdout) == (130, "")
    assert "compare-script is not finished: started again, it goes on" in done.stderr
    view = phyla.open(tmp_path / "runs/compare-script/as-written/seed-0/run").view
    assert not view.finished
    assert not view.busy.any(), "what was trained is reported, or given back"
    assert killed_by("SIGKILL", 1).returncode == -9
    said = compare(tmp_path, *options)
    assert said.code == 0, said.err
    assert numbers(said.result, "as written") == numbers(study.result, "as written")


def test_a_cells_process_has_its_lock_as_long_as_it_lives(tmp_path: Path) -> None:
    held = lock(tmp_path)
    assert held is not None
    running = cells.Running(cells.Cell("a", "a", 0, "run", tmp_path, ("sleep", "100"), 16), held)
    os.close(held)
    assert lock(tmp_path) is None
    running.kill()
    again = lock(tmp_path)
    assert again is not None
    os.close(again)


def test_what_another_process_trains_is_waited_for(tmp_path: Path) -> None:
    """Such as the last run of a comparison that was killed: nobody trains it twice."""
    held = lock(tmp_path)
    assert held is not None
    shown: list[Standing] = []
    cell = cells.Cell("a", "a", 0, "run", tmp_path, ("true",), 16)
    found = Cells([cell], 1, lambda line: None, shown.append)
    thread = threading.Thread(target=found.run)
    thread.start()
    scripts.until(lambda: shown[3:])
    assert (shown[-1].elsewhere, shown[-1].running) == (1, 0)
    os.close(held)
    thread.join(20)
    assert found.failed == {cell: "ended before its run was finished"}


# Reading --------------------------------------------------------------------------------------------------------------


def trial(seed: int, final: float | None, **given: Any) -> Trial:
    curve = [(1, 0.0), (3, final)] if final is not None else []
    return Trial(**{
        "seed": seed, "path": "", "best": final, "final": final, "intervals": 10, "steps": 10.0, "exploits": 0,
        "seconds": 1.0, "curve": curve, **given,
    })  # fmt: skip


def comparison(arms: dict[str, list[Trial]], mode: Any = "max", seeds: int = 8) -> Comparison:
    sign = 1.0 if mode == "max" else -1.0
    made = [Arm(name, {}, {}, trials, sign) for name, trials in arms.items()]
    return Comparison("study", "score", "score", mode, range(seeds), made)


def test_unequal_intervals_are_said() -> None:
    found = comparison({"a": [trial(0, 1.0)], "b": [trial(0, 1.0, intervals=9)]}, seeds=1)
    assert found.warnings == ["not at equal cost: b trained 9 intervals a run, a 10"]


def test_arms_are_held_against_each_other_by_the_seeds_that_both_have() -> None:
    all_seeds, some = [trial(s, float(s * s)) for s in range(9)], [trial(s, float(s * s) + 1) for s in range(1, 9)]
    [one] = comparison({"a": all_seeds, "b": some}, seeds=9).contrasts("final")
    assert (one.seeds, one.verdict) == (8, "better")
    assert (one.difference.value, one.difference.low, one.difference.high) == pytest.approx((1, 1, 1))


def test_where_lower_is_better_a_lower_score_is_better() -> None:
    found = comparison({"a": [trial(s, 2.0 + s) for s in range(8)], "b": [trial(s, 1.0 + s) for s in range(8)]}, "min")
    [one] = found.contrasts("final")
    assert one.verdict == "better"
    assert (one.difference.value, one.probability.value > 0.5) == (-1.0, True)
    at, (value, low, high) = found.arms[0].curve
    assert (at[0], at[-1]) == (1, 10)
    assert value[-1] == pytest.approx(5.5)
    assert (low <= value).all()
    assert (value <= high).all()


def test_a_curve_is_what_was_best_until_then() -> None:
    _, (value, _, _) = comparison({"a": [trial(0, 1.0)]}, seeds=1).arms[0].curve
    assert value.tolist() == [0.0, 0.0, *[1.0] * 8]


def test_a_run_in_which_all_diverged_counts_as_the_worst() -> None:
    arms = {"a": [trial(s, 1.0) for s in range(8)], "b": [trial(s, None) for s in range(8)]}
    found = comparison(arms)
    [one] = found.contrasts("final")
    assert one.verdict == "worse"
    assert found.as_json()["arms"][1]["final"]["value"] == -math.inf
    assert np.isnan(found.arms[1].curve[1]).all()
