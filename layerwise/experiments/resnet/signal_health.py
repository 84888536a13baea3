"""Section 4.1: do signals vanish in deep plain networks? Forward variances and gradient norms by layer.

    layerwise reproduce resnet/signal-health      # networks of figure 6; a forward and a backward pass each

The paper says that batch normalisation gives forward signals variances that are not 0 and that it "verified" healthy
norms of the gradients, so that degradation is not vanishing. It shows no numbers. Here, for one batch of 128 training
pictures in training mode, before and after training: the variance of each layer's responses behind its batch
normalisation, and the L2 norm of the loss's gradient by its weights. The weights before training are another draw of
the same initialisation, not the run's own first ones.

Left open in the paper: at what time, and what is healthy. Here "does not vanish" means that no variance is below a
hundredth of 1, and that the gradient's norm in the first layer is at least a hundredth of that in the last convolution;
"healthy" further that it is at most a hundred times as large. The control has the same plain network with weights
~ N(0, 0.01^2) and without batch normalisation, where signals must be found to vanish.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from layerwise.experiments.experiment import Claim, Numbers, Results, Row, Subject, Value, Verdict, every
from layerwise.experiments.looking import at_once, drawn, mean_over_seeds, network
from layerwise.experiments.resnet.panels import COLOURS, depth, labelled
from layerwise.experiments.resnet.protocols import cifar_row, imagenet_row
from layerwise.explain.signal_health import Health, fresh, signal_health
from layerwise.models.network import Network

TITLE = "ResNet, section 4.1: forward variances and gradient norms"
PICTURES = {"smoke": 8, "small": 128, "paper": 128}
LEAST, MOST = 0.01, 100.0
COLUMNS = ("smallest_variance_start", "first_over_last_start", "smallest_variance_end", "first_over_last_end")
CONTROL = "plain56_control"
ANOTHER_DRAW = "the weights before training are another draw of the same initialisation, not the run's own first ones"


def measure(subject: Subject) -> Numbers:
    """The health of the network with another draw of its first weights, and as it ended."""
    trained = network(subject)
    batch = at_once(subject, drawn(subject.samples("train"), PICTURES[subject.scale], subject.seed))
    return _numbers(fresh(trained, subject.seed), batch, "start") | _numbers(trained, batch, "end")


def without_normalisation(subject: Subject) -> Numbers:
    """The health of the network before training, without batch normalisation and with weights ~ N(0, 0.01^2)."""
    model = fresh(network(subject), subject.seed)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                parent._modules[name] = nn.Identity()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(subject.seed)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.01)
    batch = at_once(subject, drawn(subject.samples("train"), PICTURES[subject.scale], subject.seed))
    return _numbers(model, batch, "start")


def _numbers(model: Network, batch: tuple[Tensor, Tensor], when: str) -> dict[str, Value]:
    layers: tuple[Health, ...] = signal_health(model, *batch)[:-1]  # the fully connected layer ends in logits
    gradients = [one.gradient for one in layers]
    return {
        f"smallest_variance_{when}": min(one.variance for one in layers),
        f"first_over_last_{when}": gradients[0] / gradients[-1] if gradients[-1] else 0.0,
        f"largest_gradient_{when}": max(gradients),
        f"variances_{when}": [one.variance for one in layers],
        f"gradients_{when}": gradients,
        f"relative_{when}": [one.relative for one in layers],
    }


def _row(trained: Row) -> Row:
    return replace(trained, measure=measure, differs=(*trained.differs, ANOTHER_DRAW))


NETWORKS = ("plain20", "plain56", "resnet20", "resnet56", "resnet110")
ROWS = {
    **{name: _row(cifar_row(name)) for name in NETWORKS},
    **{name: _row(imagenet_row(name)) for name in ("plain18", "plain34")},
    CONTROL: Row(cifar_row("plain56").recipes, without_normalisation, differs=(
        "not the paper's: a control that must be found ill",)),
}  # fmt: skip
PAPER: dict[str, dict[str, Value]] = {}


def forward_lives(row: str, when: str) -> Callable[[Results], Verdict]:
    """Judges whether each layer's variance is at least a hundredth, over all seeds."""
    return _at_least(row, f"smallest_variance_{when}", LEAST)


def backward_lives(row: str, when: str) -> Callable[[Results], Verdict]:
    """Judges whether the first layer's gradient is at least a hundredth of the last convolution's."""
    return _at_least(row, f"first_over_last_{when}", LEAST)


def healthy(row: str, when: str) -> Callable[[Results], Verdict]:
    """Judges whether the gradient neither vanishes nor explodes; holds only if growing is not held against it."""
    def judge(results: Results) -> Verdict:
        found = backward_lives(row, when)(results)
        most = max(results.numbers(row, f"first_over_last_{when}"), default=0.0)
        if found.word != "holds" or most <= MOST:
            return found
        return Verdict("holds only if", f"{row}, {when}: the first layer's norm is {most:.3g} times the last one's: it "
                       "explodes rather than vanishes; only if that is healthy")

    return judge


def _at_least(row: str, name: str, bound: float) -> Callable[[Results], Verdict]:
    def judge(results: Results) -> Verdict:
        values = results.numbers(row, name)
        if not values:
            return Verdict("not measured", f"no result of {row}")
        told = f"{row}: {name} {min(values):.3g} (lowest of {len(values)} seeds), asked at least {bound:g}"
        return Verdict("holds" if min(values) >= bound else "fails", told)

    return judge


def control_is_ill(results: Results) -> Verdict:
    """Judges whether the control is found to vanish, forward and backward: else the measure proves nothing."""
    words = [forward_lives(CONTROL, "start")(results), _vanished(results)]
    if words[0].word == "not measured":
        return words[0]
    ill = words[0].word == "fails" and words[1].word == "holds"
    return Verdict("holds" if ill else "fails", f"{words[0].because}; {words[1].because}")


def _vanished(results: Results) -> Verdict:
    # The gradient by weights is a product of signals from both sides: in the control it is 0 in all layers at once.
    largest = max(results.numbers(CONTROL, "largest_gradient_start"), default=0.0)
    return Verdict("holds" if largest < 1e-6 else "fails", f"largest gradient norm of the control {largest:.3g}")


CLAIMS = {
    "forward": Claim(
        "Forward signals have variances that are not 0, in deep plain networks too (section 4.1).",
        every(*(forward_lives(row, when) for row in ("plain20", "plain56") for when in ("start", "end"))),
    ),
    "backward": Claim(
        "Gradients exhibit healthy norms with batch normalisation: they do not vanish (section 4.1).",
        every(*(healthy(row, when) for row in ("plain20", "plain56") for when in ("start", "end"))),
    ),
    "plain34": Claim(
        "The same of the plain network of 34 layers, of which the paper says it (section 4.1).",
        every(*(judge("plain34", when) for judge in (forward_lives, healthy) for when in ("start", "end"))),
    ),
    "control": Claim(
        "Control, not the paper's: without batch normalisation and with small weights both are found to vanish.",
        control_is_ill,
    ),
}


def draw(results: Results, figure: Figure) -> None:
    """Variances above, gradient norms below, by layer; left before training, right after it. Plain ones are dashed."""
    grid = figure.subplots(2, 2, sharex=True)
    for column, when in enumerate(("start", "end")):
        for line, (name, label) in enumerate((("variances", "variance"), ("gradients", "gradient norm"))):
            axes = grid[line][column]
            for row in NETWORKS:
                values = mean_over_seeds(results, row, f"{name}_{when}")
                style = "--" if row.startswith("plain") else "-"
                axes.plot(range(1, len(values) + 1), values, color=COLOURS[depth(row)], linestyle=style,
                          label=labelled(row) if values else f"{labelled(row)}, not measured", linewidth=1.4)
            axes.set_yscale("log")
            if name == "variances":  # else a line at 1 fills the panel with its noise
                low, high = axes.get_ylim()
                axes.set_ylim(min(low, LEAST), max(high, MOST))
            axes.set_ylabel(label)
            axes.set_title("before training, another draw" if when == "start" else "after training", fontsize=9)
    for axes in grid[1]:
        axes.set_xlabel("layer index")
    grid[0][0].legend(loc="best", fontsize=7, ncols=2)
