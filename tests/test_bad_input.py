"""What cannot work is said at once: what was given, what was expected, and what to do."""

import logging
import re
from functools import partial

import numpy as np
import pytest
import torch

import phyla
import scripts
from phyla.events import Failed

pytestmark = pytest.mark.filterwarnings("ignore:.*has no effect:phyla.errors.PhylaWarning")

SPACE = {"lr": phyla.Float(1e-3, 1.0, log=True), "act": phyla.Choice("relu", "tanh")}
BASICS = {"size": 2, "intervals": 2, "journal": "memory", "progress": False, "seed": 0}


def make(name="run", space=SPACE, **options):
    return phyla.Population(name, space, **{**BASICS, **options})


def zeros(member):
    return np.zeros(2)


# Arguments ------------------------------------------------------------------------------------------------------------

SPACES = [
    ({}, "space is empty"),
    (None, r"space must be a dict .*got None"),
    (["lr"], r"space must be a dict .*got \['lr'\]"),
    ({"lr": (1e-3, 1.0)}, r"space\['lr'\] must be a phyla.Float.*got \(0.001, 1.0\)"),
    ({"lr": 0.1}, r"space\['lr'\].*use a constant"),
    ({3: phyla.Float(0, 1)}, "a name must be a str, got 3"),
]


@pytest.mark.parametrize(("space", "message"), SPACES)
def test_a_space_that_is_none_is_refused(space, message):
    with pytest.raises(phyla.SettingsError, match=message):
        make(space=space)


HYPERPARAMETERS = [
    (lambda: phyla.Float(1.0, 0.1), "low must be less than high"),
    (lambda: phyla.Float(1.0, 1.0), "constant"),
    (lambda: phyla.Float(0.0, 1.0, log=True), "log=True needs low > 0, got low=0.0"),
    (lambda: phyla.Float(0.0, 1.0, log="1-x"), "needs high < 1"),
    (lambda: phyla.Float(float("nan"), 1.0), "expected a number, got nan"),
    (lambda: phyla.Int(0, 8, log=True), "log"),
    (lambda: phyla.Int(3, 1), "low must not be greater than high"),
    (lambda: phyla.Int(1.5, 3), "expected an integer, got 1.5"),
    (lambda: phyla.Choice(), "at least one value"),
    (lambda: phyla.Choice(["a", "b"]), r"got \['a', 'b'\]"),
    (lambda: phyla.Float(0.0, 1.0, init=2.0), "init must be .* within the bounds 0.0 to 1.0, got 2.0"),
]


@pytest.mark.parametrize(("build", "message"), HYPERPARAMETERS)
def test_bounds_that_cannot_work_are_refused(build, message):
    with pytest.raises(phyla.SettingsError, match=message):
        build()


ARGUMENTS = [
    ("size", 0, "size=0; expected a whole number, 1 or more"),
    ("size", 2.5, "size=2.5; expected a whole number"),
    ("size", True, "size=True; expected a whole number"),
    ("size", None, "size=None; expected a whole number"),
    ("intervals", -1, r"intervals=-1; expected a whole number, 1 or more \(or None\)"),
    ("ready", 0, "ready=0"),
    ("burn_in", -1, "burn_in=-1; expected a whole number, 0 or more"),
    ("max_lead", -1, "max_lead=-1"),
    ("window", 0, "window=0"),
    ("retries", -1, "retries=-1"),
    ("max_lost", 0, "max_lost=0"),
    ("threads", 0, "threads=0"),
    ("seed", -1, "seed=-1; expected a whole number, 0 or more"),
    ("seed", 2**64, r"seed=.*below 2\*\*63"),
    ("keep", 1, "keep=1; expected 2 or more"),
    ("seconds", 0, "seconds=0; expected a finite number above 0"),
    ("lease", float("nan"), "lease=nan; expected a finite number above 0"),
    ("sync_every", None, "sync_every=None; expected a finite number above 0"),
    ("target", "high", "target='high'; expected a finite number"),
    ("mode", "maximize", "mode='maximize'; expected 'max' or 'min'"),
    ("compare", "best", "compare='best'; expected 'progress' or 'latest'"),
    ("inherit", "all", "inherit='all'; expected 'both', 'weights' or 'hypers'"),
    ("durability", "high", "durability='high'; expected 'background' or 'strict'"),
    ("journal", "redis", "journal='redis'; expected one of 'sqlite', 'directory', 'memory'"),
    ("metric", 3, "metric=3; expected the key of the score"),
    ("path", 3, "path=3; expected the directory that holds runs"),
    ("strict", "yes", "strict='yes'; expected True or False"),
    ("fresh", 1, "fresh=1; expected True or False"),
    ("progress", "bar", r"progress='bar'; expected True or False \(or None\)"),
    ("exploit", phyla.Truncation, r"exploit=Truncation is a class; expected one of its instances: Truncation\("),
    ("explore", phyla.Perturb, r"explore=Perturb is a class; expected one of its instances: Perturb\("),
    ("strategy", phyla.Evolve, r"strategy=Evolve is a class; expected one of its instances: Evolve\("),
    ("exploit", 0.2, r"exploit=0.2; expected a strategy such as phyla.Truncation\(0.2\), or None"),
    ("explore", (0.8, 1.2), r"explore=\(0.8, 1.2\); expected a strategy such as phyla.Perturb\(0.8, 1.2\), or None"),
    ("explore", phyla.Truncation(0.2), r"cannot be called as explore\(hypers, space, view, member, rng\)"),
    ("exploit", phyla.Perturb(), r"cannot be called as exploit\(view, member, rng\)"),
    ("exploit", lambda view: None, r"cannot be called as exploit\(view, member, rng\)"),
    ("explore", phyla.Gaussian({"wd": 0.1}), "sigma names 'wd'; the space has 'lr', 'act'"),
    ("start", [], r"start=\[\]; expected phyla.open\(.*\).top\(k\), or a list of dicts"),
    ("start", {"lr": 0.1}, "expected .* a list of dicts"),
    ("start", [0.1], "start= holds 0.1; expected dicts"),
    ("start", [{"lr": 0.1, "wd": 0.1}], "start= names 'wd'; the space has 'lr', 'act'"),
    ("start", [{"lr": 7.0}], r"start= gives 'lr' the value 7.0, which the space does not allow: Float\(0.001, 1.0"),
    ("start", [{"act": "gelu"}], r"start= gives 'act' the value 'gelu'.*Choice\('relu', 'tanh'\)"),
]


@pytest.mark.parametrize(("argument", "value", "message"), ARGUMENTS)
def test_an_argument_that_cannot_work_is_refused_before_anything_is_written(argument, value, message, tmp_path):
    with pytest.raises(phyla.SettingsError, match=message):
        make(**{"journal": "sqlite", "path": tmp_path / "runs", argument: value})
    assert not (tmp_path / "runs").exists()


def test_numbers_of_numpy_are_numbers():
    population = make(size=np.int64(3), intervals=np.int32(2), target=np.float32(2.0), start=[{"lr": 1}])
    settings = population.run.settings
    assert (settings.size, settings.intervals, settings.target) == (3, 2, 2.0)


def test_an_argument_that_there_is_not_is_named():
    with pytest.raises(TypeError, match="'population_size'"):
        make(population_size=4)


def test_keep_must_hold_what_max_lead_lets_others_ask_for():
    with pytest.raises(phyla.SettingsError, match=r"keep=3; expected 4 or more \(max_lead \+ 2\)"):
        make(max_lead=2, keep=3)


def test_a_run_needs_an_end():
    with pytest.raises(phyla.SettingsError, match=r"when does the run end\? Give intervals=, target= or seconds="):
        make(intervals=None)


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", ".hidden", "a b", "-a", "é", "x" * 101, None, 3, "a\n", "a\0", "a\\b"]
)
def test_a_name_that_is_no_directorys_is_refused(name):
    with pytest.raises(
        phyla.SettingsError, match=rf"the run's name is {re.escape(repr(name))}; expected letters, digits"
    ):
        make(name)


@pytest.mark.parametrize("name", ["digits", "a.b-c_1", "7", "x" * 100])
def test_plain_names_are_fine(name):
    make(name).claim()


# Reports --------------------------------------------------------------------------------------------------------------

SCORES = [
    ("0.5", "'0.5' .str."),
    (b"1", "bytes"),
    (1j, "complex"),
    ([[1, 2], [3, 4]], r"\[\[1, 2\], \[3, 4\]\] .list."),
    (np.zeros((2, 3)), r"a score of shape \(2, 3\)"),
    (torch.zeros(2, 3), r"a score of shape \(2, 3\)"),
    ([1, "a"], r"\[1, 'a'\]"),
    ([None], r"\[None\]"),
    (object(), "object"),
    ((x for x in [1]), "generator"),
    ({1.0}, "set"),
    (10**400, "int"),
]


@pytest.mark.parametrize(("score", "message"), SCORES, ids=range(len(SCORES)))
def test_a_score_of_the_wrong_kind_is_refused_and_may_be_corrected(score, message):
    member = make().claim()
    with pytest.raises(phyla.ScoreError, match=f"report was given .*{message}.*expected a number.*samples.*None.*dict"):
        member.report(score)
    member.report(1.0)


def test_a_dict_needs_metric():
    with pytest.raises(phyla.ScoreError, match=r"a dict with 'loss', 'acc': .*Population\(metric=…\)"):
        make().claim().report({"loss": 1, "acc": 2})


def test_the_metric_must_be_in_the_dict():
    with pytest.raises(phyla.ScoreError, match=r"a dict with 'loss', but Population\(metric='acc'\) is not among them"):
        make(metric="acc").claim().report({"loss": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps=-1; expected a finite number, 0 or more"),
        ({"steps": float("nan")}, "steps=nan"),
        ({"steps": "many"}, "steps='many'"),
        ({"metrics": [1]}, r"metrics=\[1\].*expected a dict"),
        ({"metrics": {"a": object()}}, "metric 'a'.*expected numbers"),
    ],
)
def test_what_goes_with_a_score_is_checked(options, message):
    member = make().claim()
    with pytest.raises(phyla.ScoreError, match=message):
        member.report(1.0, **options)
    member.report(1.0)


def test_a_second_report_is_refused():
    member = make().claim()
    member.report(1)
    with pytest.raises(phyla.LoopError, match=r"member \d has reported interval 1 already: report once for each turn"):
        member.report(1)


def test_the_state_is_asked_for_before_the_report():
    member = make().claim()
    member.report(1)
    with pytest.raises(
        phyla.LoopError, match="has reported interval 1 already: ask for the state once, before training"
    ):
        member.state(zeros)


def test_arrays_must_be_handed_to_report():
    member = make().claim()
    member.state(zeros)
    with pytest.raises(phyla.LoopError, match=r"the state is an array.*hand the state over, report\(score, state\)"):
        member.report(1)


def test_the_first_parts_of_a_state_that_must_be_handed_over_are_named():
    member = make().claim()
    member.state(lambda newborn: {"model": torch.nn.Linear(1, 1), "w": np.zeros(2), "step": 0})
    with pytest.raises(phyla.LoopError, match=r"the state holds state\['w'\], state\['step'\], which"):
        member.report(1)


# States ---------------------------------------------------------------------------------------------------------------


class Mystery:
    pass


def test_an_object_that_cannot_be_saved_is_named_with_its_path_its_type_and_the_ways():
    member = make().claim()
    with pytest.raises(
        phyla.StateError, match=r"state\['a'\]\['env'\]\[1\] is of type .*Mystery.*phyla.Part\(.*phyla.Local\("
    ):
        member.state(lambda newborn: {"a": {"env": [1, Mystery()]}})


def test_an_object_that_the_loop_put_in_is_named_too():
    member = make().claim()
    state = member.state(zeros)
    with pytest.raises(phyla.StateError, match="Mystery"):
        member.report(1, {"w": state, "env": Mystery()})


@pytest.mark.parametrize("init", [torch.nn.Linear(1, 1), np.zeros(2), {"w": 1}])
def test_init_is_a_function_not_a_state(init):
    with pytest.raises(phyla.LoopError, match=r"given a (Linear|ndarray|dict); expected a function init\(member\)"):
        make().claim().state(init)


def test_apply_goes_with_reuse():
    with pytest.raises(phyla.LoopError, match=r"state\(apply=…\) goes with reuse=True"):
        make().claim().state(zeros, apply=lambda state, member: None)


GROWN = [
    (lambda n: np.zeros(n), r"state does not fit: .*shape \[2\].*shape \[3\]"),
    (lambda n: {"w" * n: np.zeros(2)}, r"state does not fit: the checkpoint has no 'www'"),
    (
        lambda n: {"model": torch.nn.Linear(n, 1)},
        r"state\['model'\] \(.*Linear\) does not take what was saved.*size mismatch",
    ),
    (lambda n: [{"w": np.zeros(n)}], r"state\[0\]\['w'\] does not fit: .*shape \[2\].*shape \[3\]"),
]


@pytest.mark.parametrize(("build", "message"), GROWN)
def test_a_state_that_does_not_fit_what_was_saved_is_named_with_what_to_do(build, message, tmp_path):
    first = make(journal="sqlite", path=tmp_path, size=1)
    member = first.claim()
    member.report(1, member.state(lambda newborn: build(2)))
    first.close()
    member = make(journal="sqlite", path=tmp_path, size=1).claim()
    with pytest.raises(phyla.StateError, match=message) as raised:
        member.state(lambda newborn: build(3))
    assert "structural=True" in str(raised.value)
    assert "fresh run" in str(raised.value)


# Runs -----------------------------------------------------------------------------------------------------------------


def test_a_run_that_was_created_otherwise_lists_every_difference_and_ends_with_what_to_type(tmp_path):
    make(journal="sqlite", path=tmp_path).claim()
    other = make(
        journal="sqlite",
        path=tmp_path,
        space={"lr": phyla.Float(1e-3, 2.0, log=True), "wd": phyla.Float(0, 1)},
        size=3,
        seed=5,
        mode="min",
        exploit=phyla.Truncation(0.4),
        explore=None,
        max_lead=0,
    )
    with pytest.raises(phyla.RunDiffers) as raised:
        other.claim()
    text = str(raised.value)
    for line in (
        "seed: the run has 0, the script names 5",
        "space.lr.high: the run has 1.0, the script names 2.0",
        "space.act: the run has Choice(values=['relu', 'tanh']",
        "space.wd: the run has nothing, the script names Float(low=0.0, high=1.0",
        "size: the run has 2, the script names 3",
        "mode: the run has 'max', the script names 'min'",
        "strategy.exploit.fraction: the run has 0.2, the script names 0.4",
        "strategy.explore: the run has phyla.Perturb(factors=[0.8, 1.2], resample=0.0), the script names None",
        "max_lead: the run has None, the script names 0",
    ):
        assert f"\n  {line}" in text
    assert text.startswith("the run 'run' exists, and was created with other settings:")
    assert text.endswith("phyla run --fresh SCRIPT")


def test_what_a_script_leaves_open_is_no_difference(tmp_path):
    make(journal="sqlite", path=tmp_path, seed=5, threads=1).claim()
    make(journal="sqlite", path=tmp_path, seed=None, threads=None).claim()


@pytest.mark.parametrize(
    "local", [{"lease": 5.0}, {"sync_every": 1.0}, {"strict": True}, {"seconds": 9.0}, {"progress": True}]
)
def test_what_is_local_is_no_difference(tmp_path, local):
    make(journal="sqlite", path=tmp_path).claim()
    make(journal="sqlite", path=tmp_path, **local).claim()


def test_fresh_sets_the_old_run_aside_and_deletes_nothing(tmp_path):
    old = make(journal="sqlite", path=tmp_path)
    for member in old:
        member.report(1, member.state(zeros) + 1)
    new = make(journal="sqlite", path=tmp_path, size=3, fresh=True)
    assert new.claim().interval == 1
    assert phyla.open(tmp_path / "run").settings.size == 3
    aside = phyla.open(tmp_path / "run.1")
    assert len(aside.records) == 4
    aside.load(aside.best)


def test_the_loop_of_a_finished_run_yields_nothing_and_gives_the_ways_on(tmp_path, caplog):
    for member in make(journal="sqlite", path=tmp_path):
        member.report(3, member.state(zeros) + 1)
    assert list(make(journal="sqlite", path=tmp_path)) == []
    (line,) = [record.getMessage() for record in caplog.records if "finished" in record.getMessage()]
    assert "run is finished: 2 members, 4 intervals, best score 3" in line
    for way in ("phyla change run --intervals", "fresh=True", "another name", f"phyla.open('{tmp_path / 'run'}')"):
        assert way in line


PLACES = [
    lambda path: path / "file",
    lambda path: "/proc/nobody/writes/here",
    lambda path: "/dev/null",
    lambda path: "/sys/phyla",
]


@pytest.mark.parametrize("journal", ["sqlite", "directory"])
@pytest.mark.parametrize("place", PLACES)
def test_a_path_that_cannot_be_written_is_named_with_what_to_do(tmp_path, place, journal):
    (tmp_path / "file").touch()
    population = make(journal=journal, path=place(tmp_path))
    with pytest.raises(phyla.SettingsError, match=r"cannot be kept in .*/run: .*Population\(path=…\) or \$PHYLA_RUNS"):
        population.claim()


def test_a_run_where_a_file_is_named_so_is_refused(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(phyla.SettingsError, match="File exists"):
        make(journal="sqlite", path=tmp_path).claim()


def test_a_foreign_database_in_the_runs_place_is_refused_and_stays_as_it_was(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/journal.db").write_bytes(b"SQLite format 3\0" + b"not really" * 100)
    before = (tmp_path / "run/journal.db").read_bytes()
    with pytest.raises(phyla.PhylaError, match=r"journal\.db"):
        make(journal="sqlite", path=tmp_path).claim()
    assert (tmp_path / "run/journal.db").read_bytes() == before


def test_a_script_that_never_iterates_is_told_so(tmp_path):
    script = scripts.write(
        tmp_path,
        """
        import phyla
        population = phyla.Population("idle", {"lr": phyla.Float(0, 1)}, size=2, intervals=1)
        """,
    )
    done = scripts.succeed(script)
    assert "'idle'" in done.stderr
    assert "for member in population:" in done.stderr
    assert not (tmp_path / "runs").exists()


WRONG = """
    import sys, numpy as np, phyla
    population = phyla.Population("run", {"lr": phyla.Float(0, 1)}, size=SIZE, intervals=2, seed=0, progress=False)
    for member in population:
        with member:
            state = member.state(lambda member: np.zeros(2))
            if "fixed" not in sys.argv:
                raise ValueError("wrong for everybody")
            member.report(member["lr"], state + 1)
"""


@pytest.mark.parametrize(("size", "members"), [(5, 3), (2, 2), (1, 1)])
def test_a_body_that_raises_for_everybody_ends_the_loop_with_the_users_traceback_first(tmp_path, size, members):
    script = scripts.write(tmp_path, WRONG.replace("SIZE", str(size)))
    done = scripts.run(script)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last):\n")
    first = done.stderr.split("Traceback")[1]
    assert first.rstrip().endswith("ValueError: wrong for everybody")
    assert "phyla/" not in first
    assert done.stderr.count("ValueError: wrong for everybody\n") == members
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(
        rf"LoopError: {members} different members? ha(s|ve) raised.*none has ever reported.*start it again", last
    )
    run = phyla.open(tmp_path / "runs/run")
    failed = [event for event in run.events() if isinstance(event, Failed)]
    assert len({event.member for event in failed}) == members == len(failed)
    scripts.succeed(script, "fixed")
    assert run.view.finished


def test_a_body_that_never_reports_ends_the_loop(caplog):
    population = make(size=5)
    with pytest.raises(phyla.LoopError, match=r"3 different members have ended without calling member.report"):
        for _ in population:
            pass


def test_a_body_that_raises_in_a_plain_loop_ends_the_process_and_every_rerun_tries_another_member(tmp_path):
    script = scripts.write(tmp_path, WRONG.replace("SIZE", "4").replace("with member:", "if True:"))
    for _ in range(3):
        done = scripts.run(script)
        assert done.returncode == 1
        assert done.stderr.count("Traceback") == 1
    failed = [event for event in phyla.open(tmp_path / "runs/run").events() if isinstance(event, Failed)]
    assert [event.why for event in failed] == ["raised"] * 3
    assert len({event.member for event in failed}) == 3


def test_mistakes_that_every_member_would_make_are_not_swallowed_by_with_member():
    population = make(size=5)

    def loop():
        for member in population:
            with member:
                member.state(lambda newborn: Mystery())

    with pytest.raises(phyla.StateError):
        loop()


def test_once_takes_a_plain_key():
    population = make()
    with pytest.raises(phyla.SettingsError, match=r"once\('../x'\): expected letters"):
        population.once("../x", partial(print))
    with pytest.raises(phyla.SettingsError, match=r"once\(per='node'\): expected 'host' or 'run'"):
        population.once("x", print, per="node")


def test_nothing_is_logged_by_a_loop_without_mistakes(caplog, capsys):
    with caplog.at_level(logging.DEBUG):
        for member in make():
            member.report(1, member.state(zeros) + member["lr"])
    assert not caplog.records
    assert capsys.readouterr() == ("", "")


def test_a_loop_that_goes_round_member_state_is_told_once_that_no_weights_are_kept():
    population = make(size=2, intervals=2)

    def loop():
        for member in population:
            member.report(1.0)

    with pytest.warns(phyla.PhylaWarning, match="no weights are saved or copied") as said:
        loop()
    assert len(said) == 1


def test_a_run_that_can_be_changed_names_the_command(tmp_path):
    for member in make(journal="sqlite", path=tmp_path, size=3, intervals=1):
        member.report(1.0, {})
    with pytest.raises(phyla.RunDiffers, match=r"phyla change \w+ --size 4 --intervals 2\n"):
        make(journal="sqlite", path=tmp_path, size=4, intervals=2).claim()
