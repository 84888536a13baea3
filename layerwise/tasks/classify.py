"""Classification: one label a picture, a loss on the logits, and the error rate."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from layerwise.evaluation.metrics import confusion_matrix, per_class
from layerwise.models.network import SupervisedNetwork
from layerwise.tasks.losses import OTHERS

Batch = dict[str, Any]


@dataclass(frozen=True)
class Classify:
    """A loss over classes, by default softmax cross-entropy; `kind` names another of tasks/losses.py.

    `label_smoothing` is epsilon of Szegedy et al. 2016, section 7; `class_weights` (C numbers of mean 1 over the
    training pictures, or none) weigh each picture's loss by its class. `auxiliary_weight` is the weight of each
    auxiliary head's loss (0.3 in Szegedy et al. 2014, section 5); it needs a network that has such heads.
    """

    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    kind: str = "cross-entropy"
    auxiliary_weight: float = 0.0

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The mean loss of a batch and the number of its errors.

        `batch`: `image` (N, C, H, W), `label` (N); mixed pictures (Zhang et al. 2018) also `label_b` (N) and
        `weight` (N), the part of the first label. Of mixed pictures no errors are counted: they have two labels.
        """
        auxiliary: dict[str, Tensor] = {}
        if self.auxiliary_weight:
            logits, auxiliary = cast(SupervisedNetwork, model).with_auxiliary(batch["image"])
        else:
            logits = model(batch["image"])
        loss = self._mixed(logits.float(), batch).mean()
        for answer in auxiliary.values():
            loss = loss + self.auxiliary_weight * self._mixed(answer.float(), batch).mean()
        if "label_b" in batch:
            return {"loss": loss}
        return {"loss": loss, "errors": (logits.argmax(1) != batch["label"]).sum()}

    def each(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of each picture of a batch, (N,), without auxiliary heads."""
        return self._mixed(model(batch["image"]).float(), batch)

    def _mixed(self, logits: Tensor, batch: Batch) -> Tensor:
        losses = self._losses(logits, batch["label"])
        if "label_b" in batch:
            weight = batch["weight"]
            losses = weight * losses + (1 - weight) * self._losses(logits, batch["label_b"])
        return losses

    def _losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.kind == "cross-entropy":
            losses = cross_entropy(logits, labels, label_smoothing=self.label_smoothing, reduction="none")
        else:
            losses = OTHERS[self.kind](logits, labels)
        if self.class_weights:
            losses = losses * losses.new_tensor(self.class_weights)[labels]
        return losses

    def evaluate(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Error rate, mean cross-entropy (no smoothing, no weights) and macro-F1, from sums over all samples.

        Macro-F1 is the mean over the classes that have pictures. Raises ZeroDivisionError for no samples: an error
        rate of nothing is not a number.
        """
        loss, labels, predicted, classes = 0.0, [], [], 0
        with torch.inference_mode():
            for batch in batches:
                # Off the device first: Apple's GPUs have no float64.
                logits, label = model(batch["image"]).float().cpu(), batch["label"].cpu()
                loss += float(cross_entropy(logits.double(), label, reduction="sum"))
                labels.append(label)
                predicted.append(logits.argmax(1))
                classes = logits.shape[1]
        samples = sum(len(part) for part in labels)
        confusion = confusion_matrix(torch.cat(labels).numpy(), torch.cat(predicted).numpy(), classes)
        scores = [score.f1 for score in per_class(confusion) if score.f1 is not None]
        return {"error": (samples - int(confusion.trace())) / samples, "loss": loss / samples,
                "macro_f1": sum(scores) / len(scores)}
