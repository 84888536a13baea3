"""Numbers of a survey and of a history of the field: those that follow from the networks are counted and judged.

    layerwise reproduce history/numbers

Costs nothing: networks are counted on the meta device. The survey is Yin, Wang, Wang, *Review of Deep Learning* (2015);
the history one of deep convolutional networks (2018). Neither defines what it counts; how that was closed stands with
each claim. The other numbers are results of other papers, kept with their source and not measured here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import nn

from layerwise.experiments.experiment import Claim, Numbers, Results, Row, Subject, Value, Verdict
from layerwise.models import build, reported
from layerwise.models.costs import costs
from layerwise.models.network import Network

TITLE = "Numbers of the survey (2015) and of the history (2018)"
COLUMNS = ("value", "unit")
BYTES, MEGABYTE, MEBIBYTE = 4, 10**6, 2**20  # a float32; MB as makers and as programs count it
SURVEY, HISTORY = "the survey", "the history"


@cache
def _network(name: str) -> Network:
    with torch.device("meta"):
        return build(name)


def parameter_ratio() -> float:
    """AlexNet's parameters over GoogLeNet's, auxiliary heads left out."""
    return costs()["alexnet"].parameters / costs()["googlenet"].parameters


def parameter_ratio_of_features() -> float:
    """The same without GoogLeNet's classifier."""
    head = sum(weight.numel() for weight in _network("googlenet").head.parameters())
    return costs()["alexnet"].parameters / (costs()["googlenet"].parameters - head)


def weights_of_two_3x3() -> float:
    """Weights of two 3x3 convolutions one after the other, for one channel in and out, without biases."""
    return float(sum(nn.Conv2d(1, 1, 3, bias=False).weight.numel() for _ in range(2)))


def weights_of_5x5() -> float:
    """Weights of the 5x5 convolution that sees as much."""
    return float(nn.Conv2d(1, 1, 5, bias=False).weight.numel())


def seen_by_two_3x3() -> int:
    """Side, in pixels, of what one value behind two 3x3 convolutions depends on; counted by a gradient."""
    picture = torch.zeros(1, 1, 11, 11, requires_grad=True)
    maps = picture
    for _ in range(2):
        convolution = nn.Conv2d(1, 1, 3, bias=False)
        nn.init.ones_(convolution.weight)
        maps = convolution(maps)
    maps[0, 0, 3, 3].backward()
    assert picture.grad is not None
    return int((picture.grad[0, 0] != 0).any(dim=0).sum())


def file_megabytes(network: str, unit: int = MEGABYTE) -> float:
    """The size of a network's weights as float32, in MB."""
    return costs()[network].parameters * BYTES / unit


def share_of_head(network: str = "alexnet") -> float:
    """The part of a network's parameters that lies in its fully-connected layers, in percent."""
    head = sum(weight.numel() for weight in _network(network).head.parameters())
    return 100 * head / costs()[network].parameters


def inception_depth() -> float:
    """GoogLeNet's layers with weights along the deepest way: an Inception module counts two."""
    network = _network("googlenet")
    modules = [name for name, _ in network.features.named_children() if name.startswith("inception")]
    stem = [layer for name, part in network.features.named_children() if name not in modules
            for layer in part.modules() if isinstance(layer, nn.Conv2d)]
    last = [layer for layer in network.head.modules() if isinstance(layer, nn.Linear)]
    return float(len(stem) + 2 * len(modules) + len(last))


def hidden_units() -> float:
    """The units of LeNet-5's layer F6."""
    layer = _network("lenet5").get_submodule("head.F6")
    assert isinstance(layer, nn.Linear)
    return float(layer.out_features)


def binary_ratio(kept: tuple[str, ...] = ()) -> float:
    """AlexNet in float32 over AlexNet with weights of one bit, and one float32 scale a kernel and unit.

    Biases, and the layers whose names begin with `kept`, stay float32.
    """
    network, stored = _network("alexnet"), 0.0
    for name, weight in network.named_parameters():
        if weight.ndim == 1 or name.startswith(kept):
            stored += BYTES * weight.numel()
        else:
            stored += weight.numel() / 8 + BYTES * weight.shape[0]
    return costs()["alexnet"].parameters * BYTES / stored


def ends_of_alexnet() -> tuple[str, ...]:
    """The names of AlexNet's first and last layer with weights."""
    names = [name for name, weight in _network("alexnet").named_parameters() if weight.ndim > 1]
    return names[0].removesuffix("weight"), names[-1].removesuffix("weight")


def better_than_alexnet() -> float:
    """ZFNet's top-5 error below AlexNet's, in points, from the errors that the two papers print for one network."""
    first, second = (next(one.error for one in reported(name) if one.measure.startswith("top-5"))
                     for name in ("alexnet", "zfnet"))
    return round(first - second, 2)


# Row: what it is, the printed value, its unit, who prints it, how it is counted.
COUNTED: dict[str, tuple[str, float, str, str, Callable[[], float]]] = {
    "googlenet_parameters": ("AlexNet's parameters over GoogLeNet's", 12, "times", HISTORY, parameter_ratio),
    "googlenet_depth": ("GoogLeNet's layers", 22, "layers", HISTORY, inception_depth),
    "two_3x3": ("weights of two 3x3 kernels", 18, "weights", HISTORY, weights_of_two_3x3),
    "one_5x5": ("weights of one 5x5 kernel", 25, "weights", HISTORY, weights_of_5x5),
    "alexnet_file": ("AlexNet's file in Caffe: more than", 200, "MB", HISTORY, partial(file_megabytes, "alexnet")),
    "vgg_file": ("VGG's file in Caffe: more than", 500, "MB", HISTORY, partial(file_megabytes, "vgg16")),
    "alexnet_fc": ("AlexNet's parameters in fully-connected layers: almost", 90, "%", HISTORY, share_of_head),
    "lenet5_f6": ("units of LeNet-5's layer F6", 64, "units", HISTORY, hidden_units),
    "xnor_storage": ("storage of an XNOR network: less by", 32, "times", HISTORY, binary_ratio),
    "zfnet_top5": ("ZFNet's top-5 error below AlexNet's", 1.7, "points", HISTORY, better_than_alexnet),
}
# Row: what it is, the printed value, its unit, who prints it.
CITED: dict[str, tuple[str, float, str, str]] = {
    "cd_dnn_hmm": ("relative errors of speech recognition by CD-DNN-HMM: fewer by more than", 16, "%", SURVEY),
    "switchboard": ("word error rate of a deep network on Switchboard", 18.5, "%", SURVEY),
    "switchboard_relative": ("the same, below the best system before, relatively", 33, "%", SURVEY),
    "ilsvrc2012": ("ILSVRC-2012, classification, top-5 error of the winner (AlexNet)", 15.3, "%", SURVEY),
    "ilsvrc2012_second": ("ILSVRC-2012, classification, top-5 error of the second", 26.2, "%", SURVEY),
    "ilsvrc2012_localisation": ("ILSVRC-2012, localisation, error of the winner", 34, "%", SURVEY),
    "ilsvrc2012_localisation_second": ("ILSVRC-2012, localisation, error of the second", 50, "%", SURVEY),
    "ilsvrc2013": ("ILSVRC-2013, classification, top-5 error of the winner (ZF)", 11.7, "%", SURVEY),
    "ilsvrc2013_more_data": ("the same, pre-trained on the data of ILSVRC-2011", 11.2, "%", SURVEY),
    "ilsvrc2014": ("ILSVRC-2014, classification, top-5 error of GoogLeNet", 6.7, "%", SURVEY),
    "ilsvrc2014_history": ("the same number in the history", 6.67, "%", HISTORY),
    "ilsvrc2014_casiaws": ("ILSVRC-2014, classification with more data, CASIAWS", 11, "%", SURVEY),
    "ilsvrc2014_localisation": ("ILSVRC-2014, localisation error of VGG", 26, "%", SURVEY),
    "ilsvrc2014_localisation_adobe": ("ILSVRC-2014, localisation error of Adobe, with more data", 30, "%", SURVEY),
    "ilsvrc2014_detection_nus": ("ILSVRC-2014, detection, mean average precision of NUS", 37, "% mAP", SURVEY),
    "ilsvrc2014_detection": ("ILSVRC-2014, detection with more data, GoogLeNet", 44, "% mAP", SURVEY),
    "deepid": ("faces of LFW told apart by DeepID", 97.45, "%", SURVEY),
    "deepface": ("faces of LFW told apart by DeepFace", 97.35, "%", SURVEY),
    "human_faces": ("faces of LFW told apart by people", 97.5, "%", SURVEY),
    "deepid2": ("faces of LFW told apart by DeepID2", 99.15, "%", SURVEY),
    "sports1m": ("accuracy on Sports-1M, convolutional", 63.9, "%", SURVEY),
    "sports1m_features": ("accuracy on Sports-1M, features made by hand", 55.3, "%", SURVEY),
    "ucf101": ("accuracy on UCF-101, transferred from Sports-1M", 65.4, "%", SURVEY),
    "ucf101_base": ("accuracy on UCF-101, the data set's own baseline", 43.9, "%", SURVEY),
    "kth1": ("accuracy on KTH1, Baccouche et al.", 94.39, "%", SURVEY),
    "kth2": ("accuracy on KTH2, Baccouche et al.", 92.17, "%", SURVEY),
    "lenet1990": ("error of the network of 1990 where 9 % are rejected", 1, "%", HISTORY),
    "bn_inception": ("BN-Inception's top-1 error, lower by", 2, "points", HISTORY),
    "nasnet": ("NASNet's top-1 accuracy on ImageNet", 82.7, "%", HISTORY),
    "resnext_instagram": ("top-1 accuracy of ResNeXt-101 32x48d on ImageNet", 85.4, "%", HISTORY),
    "pruned_alexnet": ("AlexNet's parameters after pruning: less by", 9, "times", HISTORY),
    "pruned_vgg16": ("VGG-16's parameters after pruning: less by", 13, "times", HISTORY),
    "xnor_speed": ("speed of an XNOR network: more by", 58, "times", HISTORY),
}
_WHERE = {"lenet1990": "; `layerwise reject` measures the same of a run"}


def _measure(count: Callable[[], float], unit: str, subject: Subject) -> Numbers:
    return {"value": count(), "unit": unit}


BOUNDS = ("alexnet_file", "vgg_file")  # printed as "more than"
PAPER: dict[str, dict[str, Value]] = {
    **{slug: {"value": f"> {value:g}" if slug in BOUNDS else value, "unit": unit}
       for slug, (_, value, unit, _, _) in COUNTED.items()},
    **{slug: {"value": value, "unit": unit} for slug, (_, value, unit, _) in CITED.items()},
}
ROWS: dict[str, Row] = {
    **{slug: Row(measure=partial(_measure, count, unit), differs=(f"{what}; printed in {where}",))
       for slug, (what, _, unit, where, count) in COUNTED.items()},
    **{slug: Row(unmeasured=f"cited: {what} {value:g} {unit}; printed in {where}, a result of another paper"
                            f"{_WHERE.get(slug, '')}") for slug, (what, value, unit, where) in CITED.items()},
}


def fewer_parameters(results: Results) -> Verdict:
    """Whether AlexNet has twelve times GoogLeNet's parameters, rounded."""
    whole, features = parameter_ratio(), parameter_ratio_of_features()
    counts = costs()
    told = (f"{counts['alexnet'].parameters:,} are {whole:.1f} times {counts['googlenet'].parameters:,}; without "
            f"GoogLeNet's classifier {features:.1f} times")
    if round(whole) == 12:
        return Verdict("holds", told)
    return Verdict("holds only if", told) if round(features) == 12 else Verdict("fails", told)


def two_for_one(results: Results) -> Verdict:
    """Whether two 3x3 kernels have 18 weights, one 5x5 has 25, and both see as much."""
    two, one, side = weights_of_two_3x3(), weights_of_5x5(), seen_by_two_3x3()
    told = (f"{two:g} and {one:g} weights a pair of channels, both see {side}x{side}; in a network only if the layer "
            "between has no more channels than the ends")
    return Verdict("holds" if (two, one, side) == (18, 25, 5) else "fails", told)


def large_files(results: Results) -> Verdict:
    """Whether the weights of AlexNet and VGG-16 as float32 exceed 200 and 500 MB, however MB are counted."""
    bounds, told, words = {"alexnet": 200, "vgg16": 500}, [], []
    for network, bound in bounds.items():
        sizes = [file_megabytes(network, unit) for unit in (MEGABYTE, MEBIBYTE)]
        told.append(f"{network} {sizes[0]:.1f} MB, {sizes[1]:.1f} MiB")
        words.append("holds" if min(sizes) > bound else "holds only if" if max(sizes) > bound else "fails")
    return Verdict(next(word for word in ("fails", "holds only if", "holds") if word in words), "; ".join(told))


def one_bit(results: Results) -> Verdict:
    """Whether one bit a weight makes AlexNet 32 times smaller: all layers, and all but the first and the last."""
    every, inner = binary_ratio(), binary_ratio(ends_of_alexnet())
    told = (f"{every:.1f} times where every layer is of one bit, with its scales; {inner:.1f} times where the first "
            "and the last layer stay float32, as Rastegari et al. 2016 train it")
    if round(inner) == 32:
        return Verdict("holds", told)
    return Verdict("holds only if" if round(every) == 32 else "fails", told)


def equals(slug: str, told: str) -> Callable[[Results], Verdict]:
    """Judges whether what is counted for a row is what is printed."""
    what, value, unit, _, count = COUNTED[slug]

    def judge(results: Results) -> Verdict:
        found = count()
        word = "holds" if abs(found - value) < 1e-9 else "fails"
        return Verdict(word, f"{what}: printed {value:g}, counted {found:g} {unit}; {told}")

    return judge


def mostly_connected(results: Results) -> Verdict:
    """Whether almost 90 % of AlexNet's parameters are in its fully-connected layers: 85 to 90 is read as almost 90."""
    share = share_of_head()
    return Verdict("holds" if 85 <= share <= 90 else "fails", f"{share:.1f} % of AlexNet's, more than printed"
                   if share > 90 else f"{share:.1f} % of AlexNet's")


CLAIMS = {
    "googlenet-parameters": Claim("GoogLeNet has a twelfth of AlexNet's parameters (the history).", fewer_parameters),
    "googlenet-depth": Claim("GoogLeNet has 22 layers (the history).", equals(
        "googlenet_depth", "layers with weights on the deepest way")),
    "two-3x3": Claim("Two 3x3 convolutions have 18 weights where a 5x5 that sees as much has 25 (the history).",
                     two_for_one),
    "files": Claim("In Caffe AlexNet's file exceeds 200 MB, VGG's 500 MB (the history): float32 weights alone.",
                   large_files),
    "fully-connected": Claim("Almost 90 % of AlexNet's parameters are in fully-connected layers (the history).",
                             mostly_connected),
    "lenet5-f6": Claim("LeNet-5's layer F6 has 64 units (the history).", equals(
        "lenet5_f6", "the network's own paper says 84 (LeCun et al. 1998, section II-B)")),
    "xnor-storage": Claim("An XNOR network takes a thirty-second of the storage (the history): of AlexNet.", one_bit),
    "zfnet-top5": Claim("ZFNet's top-5 error is 1.7 points below AlexNet's (the history).", equals(
        "zfnet_top5", "from the errors that the two papers print for one network on ImageNet's validation set")),
}
