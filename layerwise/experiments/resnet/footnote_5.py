"""Footnote 5: ResNet-110 with the rate 0.1 from the start, without the warm-up at 0.01.

    layerwise reproduce resnet/footnote-5                # small: Fashion-MNIST, 640 steps, three seeds
    layerwise reproduce resnet/footnote-5 --scale paper  # 64,000 steps of 128 pictures each

Costs 12.4 PFLOP a run at paper scale; the five runs with the warm-up are table 6's.

Left open in the paper: how many epochs are "several" (2 or more here), and how near is "similar" (0.32 points: twice
the deviation of the paper's own five runs). An epoch is 352 steps of 128 of the 45,000 pictures. The training error of
a reading is that of the steps since the one before it, so its step is known to within 35.
"""

from __future__ import annotations

import statistics
from dataclasses import replace

from layerwise.experiments.experiment import Claim, Results, Row, Verdict
from layerwise.experiments.judges import at_paper_scale, points, reached, reaches_later, similar
from layerwise.experiments.resnet.protocols import OPEN_CIFAR, cifar, cifar_row

TITLE = "ResNet, footnote 5: 110 layers without warm-up"
WITHOUT = replace(cifar("resnet110"), warmup="none", warmup_rate=0)
ROWS = {
    "resnet110": cifar_row("resnet110"),
    "resnet110_without_warm_up": Row((WITHOUT,), seeds=5, differs=OPEN_CIFAR),
}
PAPER: dict[str, dict[str, float | str]] = {"resnet110": {"error": 6.61, "deviation": 0.16, "best": 6.43}}
COLUMNS = ("error", "deviation", "best", "training_error")
EPOCH, SEVERAL = 352, 2  # steps; epochs
LENGTH = "an epoch of the small run is most of it"


def starts_after_several_epochs(results: Results) -> Verdict:
    """Whether without the warm-up the training error first falls below 90 % after `SEVERAL` epochs or more."""
    curves = results.curves("resnet110_without_warm_up")
    if not curves:
        return Verdict("not measured", "no curve of resnet110_without_warm_up")
    epochs = [reached(curve, 90) / EPOCH for curve in curves]
    told = f"below 90 % after {', '.join(f'{one:.1f}' for one in epochs)} epochs; several is {SEVERAL} or more here"
    return Verdict("holds" if statistics.fmean(epochs) >= SEVERAL else "fails", told)


def about_400_steps(results: Results) -> Verdict:
    """Whether the warm-up ends after about 400 steps: 200 to 800, as we read it."""
    ends = []
    for curve in results.curves("resnet110"):
        rates = points(curve, "learning_rate")
        full = [step for step, rate in rates.items() if rate > min(rates.values()) and rate == max(rates.values())]
        ends += full[:1]
    if not ends:
        return Verdict("not measured", "no curve of resnet110 with a rise of the rate")
    told = f"the full rate is first logged at step {', '.join(map(str, ends))}; about 400 is 200 to 800 here"
    return Verdict("holds" if 200 <= statistics.fmean(ends) <= 800 else "fails", told)


CLAIMS = {
    "starts-late": Claim(
        "With 0.1 from the start it starts converging, below 90 % error, only after several epochs (footnote 5).",
        at_paper_scale(starts_after_several_epochs, LENGTH),
    ),
    "starts-later": Claim(
        "It starts converging later than with the warm-up (section 4.2 and footnote 5).",
        reaches_later("resnet110_without_warm_up", "resnet110", 90),
    ),
    "similar": Claim(
        "It still reaches similar accuracy (footnote 5).", similar("resnet110", "resnet110_without_warm_up", 0.32)
    ),
    "warm-up": Claim(
        "The warm-up until the training error is below 80 % takes about 400 iterations (section 4.2).",
        at_paper_scale(about_400_steps, "400 iterations are of CIFAR-10"),
    ),
}
