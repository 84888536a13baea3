"""What is trained and by which rule: freezing, parameter groups, optimisers, their state as tensors, clipping.

The rules are torch's own, but `InsideSGD`. The loop sets the rate before every step with `set_rate`. Prefixes of
parameter names stand for whole parts: features.conv1 covers features.conv1.weight, not features.conv10.weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import SGD, Adadelta, Adagrad, Adam, AdamW, Optimizer, RMSprop

from layerwise.errors import InputError, amount, nearest
from layerwise.recipe import Recipe
from layerwise.recipes.contradictions import HEAD, covers, split_factor
from layerwise.training.average import Average as Average

Groups = list[dict[str, Any]]


def freeze(model: nn.Module, recipe: Recipe) -> list[str]:
    """Stop the gradients of the parameters that `recipe.freeze` covers; their names, in order.

    Raises InputError for prefixes that the network does not have, with the nearest ones, and where nothing is left.
    """
    _know(model, [prefix for prefix in recipe.freeze if prefix != HEAD], "freeze")
    names = [name for name, _ in model.named_parameters() if _frozen(name, recipe)]
    if recipe.freeze and len(names) == len(list(model.parameters())):
        raise InputError(
            f"freeze={','.join(recipe.freeze)}: no parameter is left to train",
            "A run that changes nothing would only look like a training.",
            "Take the part to train from freeze; all-but-head trains the head alone.",
        )
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    return names


def unfreeze(model: nn.Module, recipe: Recipe) -> list[str]:
    """Train what `freeze` had stopped; the names. The optimiser holds these parameters where unfreeze_at is set."""
    names = [name for name, _ in model.named_parameters() if _frozen(name, recipe)]
    for name in names:
        model.get_parameter(name).requires_grad_(True)
    return names


def keep_frozen_statistics(model: nn.Module, recipe: Recipe) -> list[str]:
    """Put the batch normalisations of frozen layers into evaluation mode, so that their statistics stay bit for bit.

    To be called after every `model.train()`; does nothing once `unfreeze` was called. Returns the modules' names.
    """
    frozen = {name: parameter.requires_grad for name, parameter in model.named_parameters() if _frozen(name, recipe)}
    if all(frozen.values()):  # nothing was frozen, or it is trained again
        return []
    names = []
    for name, module in model.named_modules():
        if isinstance(module, _NormBase):
            own = [f"{name}.{part}" for part, _ in module.named_parameters(recurse=False)]
            if _frozen(name, recipe) or (own and all(part in frozen for part in own)):
                module.eval()
                names.append(name)
    return names


def parameter_groups(model: nn.Module, recipe: Recipe) -> Groups:
    """Every parameter that is or will be trained, in exactly one group: decayed or not, times factor on the rate.

    A group has "params", "names", "weight_decay", "factor" and "label". Weights of convolutions and fc layers are the
    parameters called weight with at least two axes; scales, shifts and biases are decayed with weight_decay_on=all
    only. Of several `slow` prefixes the longest counts. Frozen parameters are included where `unfreeze_at` is set
    (without a gradient an optimiser leaves them alone), so that unfreezing changes no group. Raises InputError for
    prefixes that the network does not have.
    """
    factors = dict(split_factor(text) for text in recipe.slow)
    _know(model, list(factors), "slow")
    groups: dict[tuple[bool, float], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and not (recipe.unfreeze_at and _frozen(name, recipe)):
            continue
        weight = name.rpartition(".")[2] == "weight" and parameter.ndim >= 2
        decayed = recipe.weight_decay > 0 and (weight or recipe.weight_decay_on == "all")
        longest = max((prefix for prefix in factors if covers(prefix, name)), key=len, default="")
        factor = factors.get(longest, 1.0)
        label = f"weight decay {recipe.weight_decay:g}" if decayed else "no weight decay"
        group = groups.setdefault(
            (decayed, factor),
            {
                "params": [],
                "names": [],
                "weight_decay": recipe.weight_decay if decayed else 0.0,
                "factor": factor,
                "label": label + (f", rate x {factor:g}" if factor != 1 else ""),
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def describe_groups(groups: Groups, rate: float) -> list[str]:
    """One line a group for the start banner: tensors, parameters, and its learning rate at `rate`."""
    lines = []
    for group in groups:
        tensors, numbers = len(group["params"]), sum(part.numel() for part in group["params"])
        count = f"{amount(tensors, 'tensors')}, {numbers:,} parameters"
        lines.append(f"{group['label']}: {count}, learning rate {rate * group['factor']:g}")
    return lines


def build_optimiser(groups: Groups, recipe: Recipe) -> Optimizer:
    """The optimiser that `recipe` names over `parameter_groups`; its rate is 0 until `set_rate`."""
    groups = [dict(group) for group in groups]
    mu, beta2, epsilon = recipe.momentum, recipe.beta2, recipe.epsilon
    if recipe.optimiser == "sgd" and recipe.velocity == "inside":
        return InsideSGD(groups, momentum=mu, nesterov=recipe.nesterov)
    rules: dict[str, Callable[[], Optimizer]] = {
        "sgd": lambda: _sgd(groups, mu, recipe.nesterov),
        "adagrad": lambda: Adagrad(groups, lr=0.0, eps=epsilon, foreach=True),
        "adadelta": lambda: Adadelta(groups, lr=0.0, rho=beta2, eps=epsilon, foreach=True),
        "rmsprop": lambda: RMSprop(groups, lr=0.0, alpha=beta2, eps=epsilon, momentum=mu, foreach=True),
        "adam": lambda: Adam(groups, lr=0.0, betas=(mu, beta2), eps=epsilon, foreach=True),
        "adamw": lambda: AdamW(groups, lr=0.0, betas=(mu, beta2), eps=epsilon, foreach=True),
    }
    return rules[recipe.optimiser]()


def set_rate(optimiser: Optimizer, rate: float) -> None:
    """Set the learning rate of the next step: `rate` times each group's factor."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]


def _sgd(groups: Groups, momentum: float, nesterov: bool) -> Optimizer:
    """torch's stochastic gradient descent; on a CPU in one pass over memory, not one for each of its operations."""
    if any(part.device.type != "cpu" for group in groups for part in group["params"]):
        return SGD(groups, lr=0.0, momentum=momentum, nesterov=nesterov, foreach=True)
    optimiser = SGD(groups, lr=0.0, momentum=momentum, nesterov=nesterov, fused=True)
    optimiser.register_step_pre_hook(_lay_out)
    return optimiser


def _lay_out(optimiser: Optimizer, *_: Any) -> None:
    """Gives each gradient the memory order of its weight, and each weight that has none yet a velocity of zeros.

    torch's fused kernel walks weight, gradient and velocity side by side as they lie in memory, whatever their strides:
    a gradient in another order would be applied to other weights, without an error. And it takes velocities of all
    weights or of none, where some may have thawed later.
    """
    for group in optimiser.param_groups:
        for weight in group["params"]:
            if weight.grad is None:
                continue
            if not _lie_alike(weight, weight.grad):
                weight.grad = torch.empty_like(weight).copy_(weight.grad)
            if group["momentum"] and optimiser.state[weight].get("momentum_buffer") is None:
                optimiser.state[weight]["momentum_buffer"] = torch.zeros_like(weight)


def _lie_alike(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape have their numbers in the same order in memory."""
    return all(size == 1 or step == step_of_other
               for size, step, step_of_other in zip(one.shape, one.stride(), other.stride(), strict=True))


class InsideSGD(Optimizer):
    """Stochastic gradient descent with the learning rate inside the velocity (Krizhevsky et al. 2012, section 5).

    d = gradient + weight_decay w;  v <- momentum v - rate d;  w <- w + v. With `nesterov` the last is
    w <- w + momentum v - rate d. At a constant rate it is torch's SGD; after a drop the old velocity keeps its size.
    """

    def __init__(self, params: Iterable[dict[str, Any]], momentum: float, nesterov: bool = False) -> None:
        defaults = {"lr": 0.0, "momentum": momentum, "nesterov": nesterov, "weight_decay": 0.0}
        super().__init__(params, defaults)

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step on the gradients that are there; `closure` is not used."""
        assert closure is None, "InsideSGD takes no closure"
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            slopes: tuple[Tensor, ...] = tuple(weight.grad for weight in weights)
            if group["weight_decay"]:
                slopes = torch._foreach_add(slopes, weights, alpha=group["weight_decay"])
            for weight in weights:
                if "velocity" not in self.state[weight]:
                    self.state[weight]["velocity"] = torch.zeros_like(weight)
            velocities = [self.state[weight]["velocity"] for weight in weights]
            torch._foreach_mul_(velocities, group["momentum"])
            torch._foreach_add_(velocities, slopes, alpha=-group["lr"])
            if group["nesterov"]:
                torch._foreach_add_(weights, velocities, alpha=group["momentum"])
                torch._foreach_add_(weights, slopes, alpha=-group["lr"])
            else:
                torch._foreach_add_(weights, velocities)
        return None


def optimiser_tensors(optimiser: Optimizer) -> dict[str, Tensor]:
    """The optimiser's whole state as contiguous tensors, keyed "parameter name/entry" (not copies)."""
    found = {}
    for name, parameter in _named(optimiser).items():
        for key, value in optimiser.state.get(parameter, {}).items():
            if value is not None:
                assert isinstance(value, Tensor), f"{name}/{key} is no tensor"
                found[f"{name}/{key}"] = value.detach().contiguous()
    return found


def restore_optimiser(optimiser: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Replace the state by `optimiser_tensors` of an optimiser of the same kind: continuing is bit-identical.

    Raises InputError, before anything is changed, for names that are not trained here and for other shapes.
    """
    parameters, problems = _named(optimiser), []
    states: dict[str, dict[str, Tensor]] = {name: {} for name in parameters}
    for label, tensor in tensors.items():
        name, _, key = label.rpartition("/")
        if name not in parameters:
            problems.append(f"{label}: no such parameter is trained here")
        elif key != "step" and tensor.shape != parameters[name].shape:
            problems.append(f"{label}: shape {tuple(tensor.shape)}, expected {tuple(parameters[name].shape)}")
        elif key == "step":
            states[name][key] = tensor.detach().cpu().clone()  # torch keeps its counters there
        else:
            # Memory order and device of the parameter, as torch makes its buffers.
            states[name][key] = torch.empty_like(parameters[name], dtype=tensor.dtype).detach().copy_(tensor.detach())
    for name, parameter in parameters.items():
        lost = optimiser.state.get(parameter, {}).keys() - states[name].keys()
        if isinstance(optimiser, Adagrad) and lost:  # it has a state from the start
            problems.append(f"{name}: {', '.join(sorted(lost))} missing")
    if problems:
        raise InputError(
            "optimiser state: it is not this run's",
            "Going on with a part of it would train differently from then on.",
            "Resume from a checkpoint of this run with the recipe that it has.",
            sorted(problems),
        )
    for name, parameter in parameters.items():
        optimiser.state.pop(parameter, None)
        if states[name]:
            optimiser.state[parameter] = states[name]
            if isinstance(optimiser, RMSprop) and optimiser.defaults["momentum"]:
                # A branch from momentum=0: torch makes it in a parameter's first step alone.
                optimiser.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))


def gradient_norm(parameters: Iterable[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients together (a tensor without axes; 0 where there are none)."""
    slopes = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(slopes) if slopes else torch.zeros(())


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Scale all gradients by min(1, max_norm / (norm + 1e-6)), with max_norm 0 not at all; the norm before.

    A norm that is not finite is returned as it is: look at it before the step.
    """
    parameters = list(parameters)
    norm = gradient_norm(parameters)
    if max_norm > 0:
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def _frozen(name: str, recipe: Recipe) -> bool:
    """Whether `recipe.freeze` covers `name`."""
    return any(
        (not covers("head", name)) if prefix == HEAD else covers(prefix, name) for prefix in recipe.freeze
    )


def _know(model: nn.Module, prefixes: Sequence[str], field: str) -> None:
    """Raise InputError for each of `prefixes` that covers no parameter of the network."""
    names = [name for name, _ in model.named_parameters()]
    known = {".".join(name.split(".")[:count]) for name in names for count in range(1, name.count(".") + 2)}
    problems = [f"{prefix}{nearest(prefix, sorted(known))}" for prefix in prefixes if prefix not in known]
    if problems:
        raise InputError(
            f"{field}: the network has no parameters of {'this name' if len(problems) == 1 else 'these names'}",
            "A prefix that meets nothing would be silently ignored.",
            f"Its parts are {', '.join(sorted({'.'.join(name.split('.')[:2]) for name in names}))}.",
            problems,
        )


def _named(optimiser: Optimizer) -> dict[str, nn.Parameter]:
    """The optimiser's parameters by their names in the network."""
    return {
        name: parameter
        for group in optimiser.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
    }
