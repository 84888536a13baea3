"""The commands that measure: evaluate, calibrate, reject, report, replay."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from layerwise.cli.app import Json, data_dir
from layerwise.cli.tables import print_json, print_table
from layerwise.console import SETTINGS, note, out


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    for command in (evaluate, calibrate, reject, report, replay):
        app.command(command.__name__)(command)


def evaluate(
    models: Annotated[list[str], typer.Argument(metavar="MODEL", help="Runs or model files; probabilities of several "
                                                "are averaged.", show_default=False)],
    data: Annotated[str, typer.Option(metavar="NAME|DIR", help="Other data than the run's own.",
                                      show_default=False)] = "",
    on: Annotated[str, typer.Option(metavar="test|val|train", help="The split; none: test, or all of other data "
                                    "without splits.", show_default=False)] = "",
    protocol: Annotated[str, typer.Option(help="How pictures are shown to the network; none: as the recipe says.",
                                          show_default=False)] = "",
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Where result, predictions and worst mistakes are "
                                                "saved; none: in the run.", show_default=False)] = None,
    ignore_unknown: Annotated[bool, typer.Option("--ignore-unknown", help="Leave out pictures of classes that the "
                                                 "model does not know.")] = False,
    bad_images: Annotated[str, typer.Option(metavar="stop|skip", help="What an unreadable picture does.")] = "stop",
    as_json: Json = False,
) -> None:
    """Tests a model, or several together, under a named protocol."""
    from layerwise.jobs.assessment import Question, assess

    question = Question(data, on, protocol, ignore_unknown, bad_images, report, data_dir(), SETTINGS.offline)
    found = assess(models, question)
    if as_json:
        return print_json(found.to_json())
    for line in found.lines():
        out(line)
    return None


def calibrate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run or a model file.", show_default=False)],
    fit: Annotated[str, typer.Option(metavar="SPLIT|DIR", help="The pictures the temperature is fitted on.")] = "val",
    report: Annotated[str, typer.Option(metavar="SPLIT|DIR", help="The pictures it is judged on.")] = "test",
    figure: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the reliability figure (SVG) there too; of "
                                                "a run it is in calibration/.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Fits a temperature so that probabilities mean what they say, and shows its effect on other pictures."""
    from layerwise.jobs.assessment import Question
    from layerwise.jobs.calibration import calibrate_model, calibration_lines

    made = calibrate_model(run, fit, report, Question(data_dir=data_dir(), offline=SETTINGS.offline), figure)
    if as_json:
        return print_json(made.to_json())
    for line in calibration_lines(made):
        out(line)
    for place in ([run / "calibration" / "reliability.svg"] if run.is_dir() else []) + ([figure] if figure else []):
        out(f"figure: {place}")
    return None


def reject(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A run or a model file.", show_default=False)],
    data: Annotated[str, typer.Option(metavar="NAME|DIR", help="Other data than the run's own.",
                                      show_default=False)] = "",
    on: Annotated[str, typer.Option(metavar="test|val|train", help="The split; none: test.", show_default=False)] = "",
    rule: Annotated[str, typer.Option(metavar="difference|largest|second", help="What an answer is judged by: the "
                                      "largest probability, the second, or their difference.")] = "difference",
    error: Annotated[list[float], typer.Option(metavar="FRACTION", help="Error rates to be reached; may be "
                                               "repeated.")] = [0.01],  # noqa: B006 - typer copies it
    figure: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the curve (SVG) there.",
                                                show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Says how many pictures must be left unanswered for the error to fall to a rate (LeCun et al. 1990)."""
    from layerwise.jobs.assessment import Question
    from layerwise.jobs.reject import reject as made_by

    made = made_by(model, rule, tuple(error), Question(data, on, data_dir=data_dir(), offline=SETTINGS.offline), figure)
    if as_json:
        return print_json(made.to_json())
    for line in made.lines():
        out(line)
    if figure:
        out(f"figure: {figure}")
    return None


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's directory.", show_default=False)],
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write the metrics as TensorBoard's event files "
                                              "too, also while the run trains.")] = False,
    as_json: Json = False,
) -> None:
    """Writes the report page of a run, from its saved results; it never trains or tests."""
    import layerwise.report as pages

    page = pages.report(run)
    if tensorboard:
        from layerwise.report.tensorboard import write_events

        note(f"event files: tensorboard --logdir {write_events(run)}")
    if as_json:
        return print_json({"report": str(page), "summary": pages.summary(run)})
    out(f"report: {page}")
    return None


def replay(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of the run.", show_default=False)],
    step: Annotated[int, typer.Option(min=0, metavar="N", help="The step, counted from 0; a failure names its own.",
                                      show_default=False)],
    out_dir: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Where pictures.png and step.json go; "
                                                 "none: replays/step-N in the run.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Shows the pictures, labels and losses of one step of a training, such as one that failed."""
    from layerwise.jobs.replay import replay
    from layerwise.training.preparation import RunOptions

    found = replay(run, step, out_dir, RunOptions(data_dir=data_dir(), offline=SETTINGS.offline))
    if as_json:
        return print_json(found.to_json())
    for line in found.lines():
        out(line)
    print_table(("index", "picture", "label", "loss"),
                [(one.index, one.id, one.label, one.told) for one in found.pictures])
    for file in found.files:
        out(f"written: {file}")
    return None
