"""The test of tables 4 and 5: the whole picture at five scales through the fully convolutional network."""

from __future__ import annotations

from layerwise.evaluate import EvaluateOptions, evaluate
from layerwise.experiments.experiment import Numbers, Subject

SMOKE_PICTURES = 8
OPEN_SCALES = ("mirrored pictures take part; logits are averaged over positions, probabilities over scales and "
               "mirrors: the paper says that scores at the scales are averaged",)
TEN_CROPS = "tested with ten crops instead of whole pictures at five scales"


def at_all_scales(subject: Subject) -> Numbers:
    """Top-1 and top-5 error in percent of the mean of all models of the row, at five scales (ten crops when small)."""
    protocol = "multi-scale" if subject.scale == "paper" else "ten-crop"
    samples = subject.samples("")
    if subject.scale == "smoke":
        samples = samples.subset(range(min(SMOKE_PICTURES, len(samples))), f"{SMOKE_PICTURES} of {samples.name}")
    metrics = evaluate(subject.models, samples, EvaluateOptions(protocol)).metrics
    return {"error": 100 * metrics["error"], "top5_error": 100 * metrics["top_k_error"]["5"], "protocol": protocol}
