"""Figures as inline SVG for light and dark pages, and pictures as data URIs.

Colours are drawn as placeholders and then replaced by the page's CSS variables, so one drawing serves both schemes.
Text stays text (searchable, escaped by the SVG writer); `$` is never read as mathematics.
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from layerwise.evaluation.metrics import Bin
from layerwise.report.text import short

Points = NDArray[np.float64]  # (points, 2): iteration, value

# Placeholder -> CSS variable. The placeholders are colours that nothing else draws.
INK, MUTED, RULE, ACCENT, WARN, ON_FILL = "#010203", "#020304", "#030405", "#040506", "#050607", "#060708"
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", ACCENT: "--accent", WARN: "--warn", ON_FILL: "--on-fill"}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "layerwise", "text.parse_math": False, "axes.unicode_minus": True,
    "font.size": 12, "font.family": ["DejaVu Sans"], "axes.formatter.use_mathtext": False, "path.simplify": True,
    "text.color": INK, "axes.labelcolor": MUTED, "axes.edgecolor": RULE, "xtick.color": RULE, "ytick.color": RULE,
    "xtick.labelcolor": MUTED, "ytick.labelcolor": MUTED, "axes.grid": True, "axes.grid.axis": "y", "grid.color": RULE,
    "grid.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False,
    "ytick.major.size": 0, "axes.axisbelow": True, "axes.labelsize": 12, "figure.dpi": 72, "lines.solid_joinstyle":
    "round", "legend.frameon": False, "legend.labelcolor": INK,
}  # fmt: skip
MOST_CLASSES = 30  # of a drawn confusion matrix
MOST_KERNELS = 256
LONGEST_SIDE = 176  # pixels of a picture on the page
MOST_PIXELS = 50_000_000  # of a saved picture that is opened


def error_curves(training: Points, validation: Points, test: Sequence[float | None], size: tuple[int, int],
                 label: str) -> str:
    """Training (thin) and validation error (bold) against iterations, as in the ResNet paper's figures 1, 4 and 6.

    `training`, `validation`: (points, 2), iteration and error in percent. `test`: () or (error, low, high) in percent,
    drawn with its interval at the right edge. `size` in CSS pixels. Returns an `<svg>` element.
    """
    with _figure(size) as figure:
        axes = figure.add_subplot()
        end = max([curve[-1, 0] for curve in (training, validation) if len(curve)], default=1.0)
        if len(training):
            axes.plot(training[:, 0], training[:, 1], color=ACCENT, linewidth=1.0, label="training")
        if len(validation):
            mark = "o" if len(validation) < 40 else ""
            axes.plot(validation[:, 0], validation[:, 1], color=ACCENT, linewidth=2.6, label="validation", marker=mark,
                      markersize=4.5)
        if test and test[0] is not None:
            low, high = (value if value is not None else test[0] for value in test[1:3])
            axes.plot([end, end], [low, high], color=WARN, linewidth=1.8, clip_on=False)
            axes.plot([end], [test[0]], color=WARN, marker="D", markersize=6.5, linestyle="none",
                      label="test, at the end", clip_on=False)
        axes.set_ylim(0, error_limit(training, validation, test))
        axes.set_ylabel("error (%)")
        _iterations(axes, end)
        axes.legend(loc="upper right", handlelength=1.6)
        return _svg(figure, label)


def error_limit(training: Points, validation: Points, test: Sequence[float | None]) -> float:
    """The top of the error axis in percent: low enough to tell the last part of the curves apart."""
    values = [curve[:, 1] for curve in (training, validation) if len(curve)]
    highest = max([float(value.max()) for value in values], default=100.0)
    last = max([float(value[-max(1, len(value) // 5):].max()) for value in values], default=highest)
    ends = [value for value in test if value is not None]
    return min(100.0, max(5.0, min(highest * 1.05, max([3 * last, *(1.3 * value for value in ends)]))))


def learning_rate(rate: Points, size: tuple[int, int], label: str) -> str:
    """The learning rate against iterations: `rate` (points, 2). `size` in CSS pixels. Returns an `<svg>` element."""
    with _figure(size) as figure:
        axes = figure.add_subplot()
        axes.plot(rate[:, 0], rate[:, 1], color=MUTED, linewidth=1.6)
        levels = np.unique(rate[:, 1])
        # A few steps by factors of ten are told apart on a logarithmic axis only.
        if len(levels) <= 8 and levels[0] > 0 and levels[-1] / levels[0] > 20:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        else:
            axes.set_ylim(0, max(float(rate[:, 1].max()) * 1.05, 1e-12))
        axes.set_ylabel("learning rate")
        _iterations(axes, float(rate[-1, 0]), most=4)
        return _svg(figure, label)


def confusion_matrix(counts: NDArray[np.int64], names: Sequence[str], label: str) -> str:
    """The confusion matrix `counts` (true class, predicted class) of at most 30 classes. Returns an `<svg>` element.

    Right answers are shaded by their part of the row, wrong ones in another colour relative to the worst wrong cell.
    """
    classes = len(names)
    cell = 42 if classes <= 12 else 30 if classes <= 20 else 24
    shown = [short(name, 16) for name in names]
    longest = max(len(name) for name in shown)
    margin = max(56, 32 + int(7.2 * longest))
    side = cell * classes
    with _figure((side + margin + 12, side + margin + 12), 12 if cell > 40 else 10, None) as figure:
        width = side + margin + 12
        axes = figure.add_axes((margin / width, 8 / width, side / width, side / width))
        totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        parts = counts / totals
        wrong = np.where(np.eye(classes, dtype=bool), 0, parts)
        worst = max(float(wrong.max()), 1e-12)
        for row, column in np.argwhere(counts > 0):
            right = row == column
            strength = float(parts[row, column]) if right else float(wrong[row, column]) / worst
            shade = 0.08 + 0.82 * strength
            axes.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, facecolor=ACCENT if right else WARN,
                                     alpha=shade, linewidth=0))
            axes.text(column, row, _brief(int(counts[row, column])), ha="center", va="center_baseline",
                      color=ON_FILL if shade > 0.62 else INK, fontsize=12 if cell > 40 else 8.5)
        axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5), xlabel="predicted", ylabel="true")
        axes.grid(False)
        axes.set_xticks(range(classes), shown, rotation=90 if longest > 3 else 0)
        axes.set_yticks(range(classes), shown)
        axes.tick_params(length=0, labelcolor=INK, labeltop=True, labelbottom=False)
        axes.xaxis.set_label_position("top")
        axes.xaxis.labelpad = axes.yaxis.labelpad = 9
        axes.spines[:].set_visible(False)
        return _svg(figure, label)


def reliability(panels: Sequence[tuple[str, Sequence[Bin]]], size: tuple[int, int], label: str) -> str:
    """Reliability diagrams (Guo et al. 2017, figure 1), one a panel: `panels` are a title and its bins.

    Accuracy against confidence with the diagonal of perfect calibration, and below how many pictures each bin holds.
    Side by side, or below each other where `size` (CSS pixels) is higher than wide. Returns an `<svg>` element.
    """
    stacked = size[1] > size[0]
    shape = (2 * len(panels), 1) if stacked else (2, len(panels))
    with _figure(size) as figure:
        grid = figure.add_gridspec(*shape, height_ratios=(3, 1) * (shape[0] // 2))
        for place, (title, bins) in enumerate(panels):
            row, column = (2 * place, 0) if stacked else (0, place)
            upper, lower = figure.add_subplot(grid[row, column]), figure.add_subplot(grid[row + 1, column])
            middles = [(one.lower + one.upper) / 2 for one in bins]
            width = 0.9 * (bins[0].upper - bins[0].lower) if bins else 1.0
            upper.bar(middles, [one.accuracy or 0 for one in bins], width=width, color=ACCENT, alpha=0.75,
                      label="accuracy")
            full = [(middle, one.confidence) for middle, one in zip(middles, bins, strict=True)
                    if one.confidence is not None]
            upper.hlines([sure for _, sure in full], [middle - width / 2 for middle, _ in full],
                         [middle + width / 2 for middle, _ in full], color=WARN, linewidth=2, label="mean confidence")
            upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="calibrated")
            upper.set(xlim=(0, 1), ylim=(0, 1), title=title)
            upper.title.set_fontsize(12)
            upper.set_xticklabels([])
            lower.bar(middles, [one.count for one in bins], width=width, color=MUTED, alpha=0.6)
            lower.set(xlim=(0, 1), xlabel="confidence")
            lower.yaxis.set_major_locator(MaxNLocator(2, integer=True))
            lower.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _brief(int(value))))
            if column == 0:
                upper.set_ylabel("accuracy")
                lower.set_ylabel("pictures")
            if place == 0:
                upper.legend(loc="upper left", handlelength=1.4, fontsize=10)
        return _svg(figure, label)


def rejection(curve: Mapping[str, Any], targets: Sequence[float], size: tuple[int, int], label: str) -> str:
    """Error of the answers against the part that is rejected, in percent (LeCun et al. 1990); targets as marks.

    `curve` has rejected and error as fractions, rejection rising. Returns an `<svg>` element.
    """
    with _figure(size) as figure:
        axes = figure.add_subplot()
        rejected, error = (100 * np.asarray(curve[key]) for key in ("rejected", "error"))
        axes.step(rejected, error, where="post", color=ACCENT, linewidth=2)
        for target in targets:
            axes.axhline(100 * target, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.set(xlim=(0, None), ylim=(0, None), xlabel="rejected (%)", ylabel="error of the answers (%)")
        return _svg(figure, label)


def curves(series: Sequence[tuple[str, Sequence[float], Sequence[float]]], axis_names: tuple[str, str], log: bool,
           size: tuple[int, int], label: str) -> str:
    """Named curves over one pair of axes: (name, x, y) each; `log` for a logarithmic axis of y. An `<svg>` element."""
    with _figure(size) as figure:
        axes = figure.add_subplot()
        for place, (name, x, y) in enumerate(series):
            mark = "o" if len(x) < 40 else ""
            axes.plot(x, y, color=(ACCENT, WARN, MUTED, INK)[place % 4], linewidth=2, marker=mark, markersize=4,
                      linestyle=("-", (0, (4, 2)), (0, (1, 1)))[place // 4 % 3], label=short(name, 28))
        if log and any(value > 0 for _, _, y in series for value in y):
            axes.set_yscale("log", nonpositive="mask")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        elif not log and all(value >= 0 for _, _, y in series for value in y):
            axes.set_ylim(bottom=0)
        axes.set(xlabel=axis_names[0], ylabel=axis_names[1])
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if len(series) > 1:
            axes.legend(loc="best", handlelength=1.6, fontsize=10)
        return _svg(figure, label)


def standalone(svg: str, style: str) -> str:
    """A figure as a file of its own: the page's colours for light and dark of `style` (style.css) within it."""
    colours = "".join(re.findall(r"^(?::root \{.*?^\}|@media \(prefers-color-scheme: dark\) \{.*?^\})", style,
                                 re.MULTILINE | re.DOTALL))
    inner = f"<style>{colours} svg {{ background: var(--card); font-family: sans-serif; }}</style>"
    head, rest = svg.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">{inner}{rest}\n'


def top_confusions(counts: NDArray[np.int64], most: int) -> list[tuple[int, int, int]]:
    """The `most` frequent confusions as (true class, predicted class, pictures), the most frequent first."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [(int(index) // len(wrong), int(index) % len(wrong)) for index in order]
    return [(true, predicted, int(wrong[true, predicted])) for true, predicted in pairs if wrong[true, predicted] > 0]


def kernel_grid(weight: NDArray[np.float64]) -> str:
    """The kernels `weight` (kernels, C, H, W), C 1 or 3, as a data URI of one PNG.

    Middle grey is 0; each kernel is scaled by its own largest absolute weight.
    """
    kernels = weight[:MOST_KERNELS].transpose(0, 2, 3, 1).astype(np.float64)
    number, height, width, channels = kernels.shape
    largest = np.maximum(np.abs(kernels).max(axis=(1, 2, 3), keepdims=True), 1e-12)
    pixels = np.round(127.5 + 127.5 * kernels / largest).astype(np.uint8)
    pixels = np.repeat(pixels, 3, axis=3) if channels == 1 else pixels
    scale = max(1, 40 // max(height, width))
    pixels = pixels.repeat(scale, axis=1).repeat(scale, axis=2)
    gap, columns = 5, min(number, 8 if number <= 16 else 16)
    lines = -(-number // columns)
    tall, wide = height * scale + gap, width * scale + gap
    grid = np.zeros((lines * tall - gap, columns * wide - gap, 4), np.uint8)  # transparent between the kernels
    for index, kernel in enumerate(pixels):
        top, left = index // columns * tall, index % columns * wide
        grid[top:top + height * scale, left:left + width * scale, :3] = kernel
        grid[top:top + height * scale, left:left + width * scale, 3] = 255
    return _uri(Image.fromarray(grid), "PNG")


def picture(file: Path) -> str:
    """The saved picture `file` as a data URI, shrunk to the page's size and without its metadata.

    Raises OSError or ValueError where it is not a readable picture of a reasonable size.
    """
    with Image.open(file, formats=("PNG", "JPEG")) as opened:
        if opened.width * opened.height > MOST_PIXELS:
            raise ValueError(f"{opened.width} x {opened.height} pixels")
        image = opened.convert("L" if opened.mode in ("1", "L", "LA") else "RGB")
    small = max(image.size) <= 64
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return _uri(image, "PNG" if small else "JPEG")


def _uri(image: Image.Image, kind: str) -> str:
    stream = io.BytesIO()
    if kind == "PNG":
        image.save(stream, "PNG", optimize=True)
    else:
        image.save(stream, "JPEG", quality=85)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _brief(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"


def _iterations(axes: Axes, end: float, most: int = 6) -> None:
    axes.set_xlim(0, max(end, 1.0))
    axes.set_xlabel("iterations")
    axes.xaxis.set_major_locator(MaxNLocator(most, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


@contextmanager
def _figure(size: tuple[int, int], font: int = 12, layout: Literal["constrained"] | None = "constrained",
            ) -> Iterator[Figure]:
    """A figure without background of `size` CSS pixels, in the page's style; nothing global stays changed."""
    with warnings.catch_warnings(), mpl.rc_context(STYLE | {"font.size": font}):
        # Names in scripts that the measuring font lacks are drawn by the browser's own fonts.
        warnings.filterwarnings("ignore", message=r"Glyph \d+")
        # A figure narrower than its numbers: it is drawn with matplotlib's own margins instead.
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), layout=layout)
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        yield figure


def _svg(figure: Figure, label: str) -> str:
    """The figure as an `<svg>` element for a page: own ids, CSS variables for colours, no metadata or outside names.

    Only attributes are rewritten, never text: a class may be called `#010203`.
    """
    for axes in figure.axes:
        axes.patch.set_visible(False)
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Creator": None, "Date": None, "Format": None, "Type": None})
    written = ElementTree.fromstring(stream.getvalue())
    prefix = re.sub(r"[^a-z]+", "-", label.lower())[:24]
    used = set(re.findall(r'[("]#([^")]+)[)"]', stream.getvalue().decode()))
    for parent in written.iter():
        for child in [child for child in parent if child.tag.endswith("}style")]:
            parent.remove(child)
    for element in written.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.tail = None
        if element.tag != "text":
            element.text = None
        attributes = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        element.attrib.clear()
        for name, value in attributes.items():
            if name != "id" or value in used:
                element.set(name, _attribute(name, value, prefix))
    width, height = written.attrib["viewBox"].split()[2:]
    written.attrib.clear()
    for name, value in (("viewBox", f"0 0 {width} {height}"), ("width", width), ("height", height), ("role", "img"),
                        ("aria-label", label)):
        written.set(name, value)
    return ElementTree.tostring(written, encoding="unicode")


def _attribute(name: str, value: str, prefix: str) -> str:
    """An attribute of the SVG as the page has it."""
    if name == "id":
        return f"{prefix}-{value}"
    value = re.sub(r"^#|(?<=url\()#", f"#{prefix}-", value) if name in ("href", "clip-path") else value
    if name == "style":
        value = re.sub(r"font: (?:[a-z]+ )*([\d.]+)px [^;]*", r"font-size: \1px", value)
        value = re.sub(r"font-family: [^;]*;? ?", "", value)
        for placeholder, variable in VARIABLES.items():
            value = value.replace(placeholder, f"var({variable})")
        return value
    return re.sub(r"\s+", " ", re.sub(r"(\d\.\d\d)\d+", r"\1", value)).strip()
