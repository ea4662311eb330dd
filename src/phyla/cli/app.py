"""The commands: what each takes and says of itself. What they do stands beside, and is imported when it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, CycloptsError, Group, Parameter

from phyla.version import __version__

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

_STARTING = frozenset({"--path", "--journal", "--checkpoints", "--lease", "--deadline"})
SCRIPTED: Mapping[str, frozenset[str]] = {
    "check": frozenset(),
    "compare": frozenset({"--arms", "--seeds", "--workers", "--metric", "--mode", "--name", "--path", "--plot"}),
    "run": _STARTING | {"--workers", "--gpus-per-worker"},
    "worker": _STARTING,
}
"""Commands that take a script, and those of their options that take a value: whatever follows SCRIPT is its own."""


class Misuse(Exception):
    """The command line does not say what to do."""


class Calm:
    """Help without boxes."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        from rich.table import Table
        from rich.text import Text

        if not panel.entries:
            return
        table = Table.grid(padding=(0, 3, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column()
        for entry in panel.entries:
            labels = [*entry.positive_names, *entry.positive_shorts]
            if entry.positional_label:
                labels = [entry.positional_label]
            elif entry.metavar:
                labels = [f"{labels[0]} {entry.metavar}"]
            table.add_row(Text(f"  {', '.join(labels)}"), entry.description)
        console.print(Text(str(panel.title), "bold"), table, "", sep="\n")

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        from rich.text import Text

        console.print(Text.assemble(("Usage: ", "bold"), str(usage).strip()), "", sep="\n")


app = App(
    name="phyla",
    version=__version__,
    help="""Population Based Training: look at a run, check it, take what it found.

RUN is a run's directory (runs/digits), or its name. A run may be read while it trains; reading never writes.

For example:

    python digits.py            # trains: it loops over a phyla.Population
    phyla run digits.py         # the same with a worker on every core
    phyla status digits         # how the run stands
    phyla best digits           # what it found, and how to load it""",
    help_format="plaintext",
    help_formatter=Calm(),
    default_parameter=Parameter(negative="", show_default=False),
    group_parameters="Options",
    group_arguments="Arguments",
)
app["--help"].help = "Show this, or what a command takes."
app["--version"].help = "Show the version of phyla."
app["--help"].group = app["--version"].group = Group("Options", sort_key=3)

TRAIN = Group("Train", sort_key=0)
READ, CHECK = Group("Read a run", sort_key=1), Group("Check", sort_key=2)
STEER = Group("Steer a run", sort_key=1)

RunName = Annotated[str, Parameter(help="The run's directory, or its name under $PHYLA_RUNS or ./runs.")]
Json = Annotated[bool, Parameter(help="Print JSON.")]


Script = Annotated[str | None, Parameter(help="A script that trains a population.")]
Args = Annotated[str, Parameter(help="The script's own arguments: all that follows it.", allow_leading_hyphen=True)]
Module = Annotated[str | None, Parameter("-m", help="A module in the script's place.", metavar="MODULE")]
Runs = Annotated[Path | None, Parameter(help="The directory that holds runs.", metavar="DIR")]
Kind = Annotated[str | None, Parameter(help="sqlite, or directory for network file systems.", metavar="KIND")]
Store = Annotated[
    Path | None, Parameter(help="Where a new run keeps its checkpoints: on another disk, say.", metavar="DIR")
]
Lease = Annotated[float | None, Parameter(help="Seconds of silence after which a worker counts as lost.", metavar="S")]
Deadline = Annotated[
    str | None, Parameter(help="End after 90 (seconds), 10m, 2h. By default with Slurm's job.", metavar="WHEN")
]


@app.command(group=TRAIN)
def run(
    script: Script = None,
    /,
    *args: Args,
    module: Module = None,
    workers: Annotated[
        int | None,
        Parameter(help="Processes. By default one a core, at most 8; or as many as the devices hold.", metavar="N"),
    ] = None,
    gpus_per_worker: Annotated[
        float | None, Parameter(help="CUDA devices that each worker sees; 0.25: four workers share one.", metavar="G")
    ] = None,
    fresh: Annotated[bool, Parameter(help="Set the run of this name aside, and begin anew.")] = False,
    path: Runs = None,
    journal: Kind = None,
    checkpoints: Store = None,
    lease: Lease = None,
    deadline: Deadline = None,
) -> int:
    """Trains with several workers: processes that run the same script.

    Those that die are started again while something is left to do. Each prints to the run's logs/worker-N.log.

    Ctrl-C lets them finish what they train; a second one ends them at once. Exits with 75 if the deadline came with work left.

    For example:

        phyla run digits.py
        phyla run --workers 4 --deadline 2h digits.py --epochs 3
    """
    from phyla.cli.run import run

    return run(
        script,
        args,
        module=module,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        fresh=fresh,
        path=path,
        journal=journal,
        checkpoints=checkpoints,
        lease=lease,
        deadline=deadline,
    )


@app.command(group=TRAIN)
def worker(
    script: Script = None,
    /,
    *args: Args,
    module: Module = None,
    path: Runs = None,
    journal: Kind = None,
    checkpoints: Store = None,
    lease: Lease = None,
    deadline: Deadline = None,
) -> int:
    """Joins a run with one process, that nobody starts again: what a scheduler starts.

    For example:

        srun phyla worker --journal directory --path /shared/runs digits.py
    """
    from phyla.cli.run import worker

    return worker(
        script,
        args,
        module=module,
        path=path,
        journal=journal,
        checkpoints=checkpoints,
        lease=lease,
        deadline=deadline,
    )


@app.command(group=TRAIN)
def compare(
    script: Script = None,
    /,
    *args: Args,
    module: Module = None,
    arms: Annotated[
        str | None,
        Parameter(
            help="Which, such as 'random search,lucky seeds'. By default the script as it is written, these two, and those "
            "that it names in Population(arms=…). There are also weights only, and hypers only.",
            metavar="NAMES",
        ),
    ] = None,
    seeds: Annotated[str, Parameter(help="How many, from 0 on, or which: 3,5,9. By default 8.", metavar="SEEDS")] = "8",
    workers: Annotated[
        int | None, Parameter(help="Runs that are trained at once. By default one a core.", metavar="N")
    ] = None,
    metric: Annotated[
        str | None,
        Parameter(
            help="Report this of the selected models, of report(…, metrics=), and not the score that selected them.",
            metavar="NAME",
        ),
    ] = None,
    mode: Annotated[
        str | None, Parameter(help="Of --metric: max or min. By default as the score.", metavar="MODE")
    ] = None,
    name: Annotated[
        str | None,
        Parameter(help="The comparison's, which names its directory. By default compare-SCRIPT.", metavar="NAME"),
    ] = None,
    path: Runs = None,
    plot: Annotated[Path | None, Parameter(help="Draw it here; the ending is the format.", metavar="FILE")] = None,
    fresh: Annotated[bool, Parameter(help="Set the comparison of this name aside, and begin anew.")] = False,
    json: Json = False,
) -> int:
    """Trains a population in several ways at equal cost, from the same seeds, and says whether they can be told apart.

    The ways are arms: the script as it is written, and controls. Random search copies nobody; lucky seeds copies without
    exploring. Further scripts that follow the first are arms themselves. Each run lies in runs/compare-SCRIPT/ARM/seed-K.

    Ctrl-C lets runs finish what they train; the same command goes on, and trains only what is missing.

    For example:

        phyla compare digits.py
        phyla compare --seeds 16 --metric test --plot digits.png digits.py --epochs 3
        phyla compare pbt.py baseline.py
    """
    from phyla.cli.compare import compare

    return compare(
        script,
        args,
        module=module,
        arms=arms,
        seeds=seeds,
        workers=workers,
        metric=metric,
        mode=mode,
        name=name,
        path=path,
        plot=plot,
        fresh=fresh,
        json=json,
    )


@app.command(group=READ)
def status(
    run: RunName,
    /,
    *,
    all: Annotated[bool, Parameter(help="Every member, not only the best 20; always in a pipe.")] = False,
    json: Json = False,
) -> int:
    """How a run stands: progress, pace, and its members by score.

    For example:

        phyla status digits
        phyla status digits --json | jq .best.score
    """
    from phyla.cli.status import status

    return status(run, everyone=all, json=json)


@app.command(group=READ)
def watch(
    run: RunName,
    /,
    *,
    json: Annotated[bool, Parameter(help="Print exploits, failures and reports as JSON, an object a line.")] = False,
) -> int:
    """A run as it goes on, in a table that stays, until it is finished.

    Somebody else trains it; Ctrl-C ends the watching only.

    For example:

        phyla watch digits
        phyla watch digits --json | jq 'select(.kind == "exploit")'
    """
    from phyla.cli.watch import watch

    return watch(run, json=json)


@app.command(group=READ)
def best(run: RunName, /, *, json: Json = False) -> int:
    """The best model found: score, hyperparameters, schedule, checkpoint. Of several objectives, the front of models.

    For example:

        phyla best digits
        phyla best digits --json | jq -r .checkpoint.path
    """
    from phyla.cli.reading import best

    return best(run, final=False, json=json)


@app.command(group=READ)
def final(run: RunName, /, *, json: Json = False) -> int:
    """The best of the models that the members stand at now.

    For example:

        phyla final digits
    """
    from phyla.cli.reading import best

    return best(run, final=True, json=json)


@app.command(group=READ)
def schedule(
    run: RunName,
    /,
    *,
    member: Annotated[
        int | None, Parameter(help="The schedule of what this member stands at, not of the best.", metavar="M")
    ] = None,
    out: Annotated[Path | None, Parameter(help="Save it as JSON, for phyla.Schedule.load.", metavar="FILE")] = None,
    json: Json = False,
) -> int:
    """The best model's hyperparameters as a function of training steps.

    They are those of its true ancestry: of whoever trained these weights at the time.

    For example:

        phyla schedule digits
        phyla schedule digits --out schedule.json
    """
    from phyla.cli.reading import schedule

    return schedule(run, member=member, out=out, json=json)


@app.command(group=READ)
def lineage(run: RunName, /, *, json: Json = False) -> int:
    """Who copied whom, when, and what changed; whose weights live on.

    For example:

        phyla lineage digits
        phyla lineage digits | grep "^m3 "
    """
    from phyla.cli.reading import lineage

    return lineage(run, json=json)


@app.command(group=READ)
def export(
    run: RunName,
    /,
    *,
    json: Annotated[bool, Parameter(help="Every event, one JSON object a line. The default.")] = False,
    csv: Annotated[bool, Parameter(help="Every report as a row of CSV, with hyperparameters and metrics.")] = False,
    out: Annotated[Path | None, Parameter(help="Write to a file.", metavar="FILE")] = None,
) -> int:
    """All that the journal holds, for other programs.

    For example:

        phyla export digits --json | jq 'select(.kind == "failed")'
        phyla export digits --csv --out digits.csv
    """
    from phyla.cli.reading import export

    if json and csv:
        raise Misuse("--json and --csv are two forms of the output; give one of them")
    return export(run, table=csv, out=out)


@app.command(group=READ)
def plot(
    run: RunName,
    /,
    *,
    out: Annotated[Path | None, Parameter(help="Draw it here; the ending is the format.", metavar="FILE")] = None,
) -> int:
    """A picture: scores, the winner's ancestry, and the schedule that made it.

    For example:

        phyla plot digits --out digits.png
    """
    from phyla.cli.reading import plot

    return plot(run, out=out)


@app.command(group=CHECK)
def doctor(
    run: RunName,
    /,
    *,
    repair: Annotated[
        bool, Parameter(help="Free what dead workers hold, record lost checkpoints, delete files that nobody needs.")
    ] = False,
    dry_run: Annotated[bool, Parameter(help="With --repair: only say what it would do.")] = False,
    json: Json = False,
) -> int:
    """Is a run sound? Checks its journal, its checkpoints, its decisions.

    Each problem says what to do. Exits with 1 if there is one.

    For example:

        phyla doctor digits
        phyla doctor digits --repair --dry-run
    """
    from phyla.cli.doctor import doctor

    if dry_run and not repair:
        raise Misuse("--dry-run goes with --repair; without it nothing is ever changed")
    return doctor(run, repair=repair, dry_run=dry_run, json=json)


@app.command(group=CHECK)
def gc(
    run: RunName,
    /,
    *,
    dry_run: Annotated[bool, Parameter(help="Only say what would be deleted.")] = False,
    json: Json = False,
) -> int:
    """Delete a run's files that nobody needs any more.

    Checkpoints that the journal has released, and what crashed workers left behind. Workers do this as they go on; nothing
    that a run still needs, and no file that phyla did not name, is touched.

    For example:

        phyla gc digits --dry-run
    """
    from phyla.cli.gc import gc

    return gc(run, dry_run=dry_run, json=json)


@app.command(group=CHECK)
def check(
    script: Annotated[Path, Parameter(help="A script that trains a population.")],
    /,
    *args: Annotated[
        str, Parameter(help="The script's own arguments: all that follows it.", allow_leading_hyphen=True)
    ],
    json: Json = False,
) -> int:
    """Is a member kept in memory the same as one restored from disk?

    Trains a few intervals of the script to find out, and writes nothing. Where they differ, it names what differs, why, and
    what to do about it.

    For example:

        phyla check digits.py
        phyla check digits.py --epochs 1
    """
    from phyla.check import check

    return check(script, list(args), json=json)


@app.command(group=STEER)
def change(
    run: RunName,
    /,
    *,
    intervals: Annotated[int | None, Parameter(help="What each member trains for.", metavar="N")] = None,
    size: Annotated[
        int | None,
        Parameter(help="Members. New ones copy one of the best and explore; the worst leave.", metavar="N"),
    ] = None,
    space: Annotated[
        tuple[str, ...], Parameter(help="Another bound, NAME.low=X or NAME.high=X.", metavar="BOUND")
    ] = (),
    json: Json = False,
) -> int:
    """Changes a run, while it trains or between two starts.

    Its script may go on naming the old values.

    For example:

        phyla change digits --intervals 60
        phyla change digits --size 32 --space lr.high=0.5 --space lr.low=1e-5
    """
    from phyla.cli.steering import change

    return change(run, intervals=intervals, size=size, space=space, json=json)


@app.command(group=STEER)
def pause(run: RunName, /, *, json: Json = False) -> int:
    """Lets the workers finish what they train, and wait.

    For example:

        phyla pause digits
    """
    from phyla.cli.steering import pause

    return pause(run, json=json)


@app.command(group=STEER)
def resume(run: RunName, /, *, json: Json = False) -> int:
    """Goes on with a run that was paused or stopped.

    For example:

        phyla resume digits
    """
    from phyla.cli.steering import resume

    return resume(run, json=json)


@app.command(group=STEER)
def stop(run: RunName, /, *, json: Json = False) -> int:
    """Ends a run before its time, on all machines: each worker ends after what it trains now.

    For example:

        phyla stop digits
    """
    from phyla.cli.steering import stop

    return stop(run, json=json)


def execute(arguments: Sequence[str]) -> int:
    """Runs the command of a command line. Raises Misuse where there is none to be found in it."""
    tokens = verbatim_after_script(list(arguments))
    try:
        command, bound, _ = app.parse_args(tokens, print_error=False, exit_on_error=False, help_on_error=False)
    except CycloptsError as error:
        chain = " ".join(["phyla", *(error.command_chain or ())])
        raise Misuse(f"{error}\nWhat it takes: {chain} --help") from None
    return command(*bound.args, **bound.kwargs) or 0


def verbatim_after_script(tokens: list[str]) -> list[str]:
    """The command line with a `--` before its script, if it has one: cyclopts takes nothing behind it for an option."""
    with_value = SCRIPTED.get(tokens[0]) if tokens else None
    if with_value is None:
        return tokens
    place = 1
    while place < len(tokens) and tokens[place].startswith("-"):
        if tokens[place] == "--":
            return tokens
        if tokens[place] == "-m":  # the module stands in the script's place
            return [*tokens[: place + 2], "--", *tokens[place + 2 :]]
        place += 2 if tokens[place] in with_value else 1
    return [*tokens[:place], "--", *tokens[place:]] if place < len(tokens) else tokens
