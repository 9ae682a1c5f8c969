"""One optimizer with two update rules: Muon for weights that mix channels, AdamW for all other parameters.

Source: Keller Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024): the momentum of a
weight matrix is orthogonalized by a few quintic Newton-Schulz steps: its singular values become about one. As there,
convolutions are matrices (out, in * k * k). AdamW: arXiv 1711.05101.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn

from efftasks.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from efftasks.structures.protocols import HasExperts

__all__ = ["MuonAdamW", "MuonConstructor", "orthogonalize", "split_parameters"]

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_STACK = 3  # dimensions of the kernels of several experts, each of which is a matrix of its own


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Orthogonalize matrices (N, rows, columns): singular vectors stay, singular values become about one (0.7 to 1.2).

    The quintic iteration x <- (a + b g + c g^2) x with g = x x^T is computed on g alone, which has the shorter side.
    Its factors commute, and x is multiplied once, at the end. That takes half the time of iterating x.
    """
    a, b, c = _COEFFICIENTS
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    gram = x @ x.mT
    product: Tensor | None = None
    for step in range(steps):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else factor @ product
        if step < steps - 1:  # the last one is not needed
            gram = factor @ gram @ factor
    x = x if product is None else product @ x
    return x if wide else x.mT


class MuonAdamW(torch.optim.Optimizer):
    """AdamW, or Muon for parameter groups with ``muon=True``.

    Args:
        params: parameter groups, with ``muon`` and, optionally, ``lr`` and ``weight_decay``.
        lr: learning rate of AdamW; groups of Muon have one of their own.
        weight_decay: decoupled, of both.
        momentum: of Muon (Nesterov).
        betas: of AdamW.
        eps: of AdamW.
    """

    LR, MUON_LR, WEIGHT_DECAY = 2e-3, 0.02, 0.05

    def __init__(
        self,
        params: Any,
        lr: float = LR,
        weight_decay: float = WEIGHT_DECAY,
        momentum: float = 0.9,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
    ) -> None:
        defaults = dict(lr=lr, weight_decay=weight_decay, momentum=momentum, betas=betas, eps=eps, muon=False)
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                (self._muon if group["muon"] else self._adamw)(group, params)
        return loss

    def _muon(self, group: dict[str, Any], params: list[Tensor]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        gradients = [p.grad for p in params if p.grad is not None]
        momenta = [self.state[p]["momentum"] for p in params]
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, gradients)
        directions = torch._foreach_add(gradients, momenta, alpha=group["momentum"])
        by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, p in enumerate(params):
            kernel = p[0] if p.dim() == _STACK else p
            by_shape[kernel.shape[0], kernel[0].numel()].append(i)
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        for (rows, columns), members in by_shape.items():  # matrices of equal shapes in one batch
            parts = [directions[i].reshape(-1, rows, columns) for i in members]
            part = [params[i] for i in members]
            moved = orthogonalize(torch.cat(parts).float()).split([len(matrices) for matrices in parts])
            updates = [update.view_as(p) for update, p in zip(moved, part)]
            torch._foreach_add_(part, updates, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)

    def _adamw(self, group: dict[str, Any], params: list[Tensor]) -> None:
        by_step: dict[int, list[Tensor]] = defaultdict(list)  # several where some had no gradient
        for p in params:
            if not self.state[p]:
                self.state[p].update(step=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
            self.state[p]["step"] += 1
            by_step[self.state[p]["step"]].append(p)
        for step, part in by_step.items():
            self._adamw_step(group, part, step)

    def _adamw_step(self, group: dict[str, Any], params: list[Tensor], step: int) -> None:
        beta1, beta2 = group["betas"]
        gradients = [p.grad for p in params if p.grad is not None]
        means = [self.state[p]["mean"] for p in params]
        squares = [self.state[p]["square"] for p in params]
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        denominator = torch._foreach_div(squares, 1 - beta2**step)
        torch._foreach_sqrt_(denominator)
        torch._foreach_add_(denominator, group["eps"])
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_addcdiv_(params, means, denominator, -group["lr"] / (1 - beta1**step))


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Split trainable parameters into those of Muon, of AdamW with weight decay, and of AdamW without.

    Muon updates linear layers and convolutions without bias that mix channels, each expert of a conditional one for
    itself. AdamW with weight decay updates depthwise convolutions, which are no matrices, and convolutions with bias,
    which are prediction layers. Norms, biases, scales and routers have no weight decay.
    """
    mixing: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if name != "weight" or parameter.ndim < 2:
                plain.append(parameter)
            elif isinstance(module, nn.Linear) or _mixes_channels(module):
                mixing.append(parameter)
            else:
                decayed.append(parameter)
    return mixing, decayed, plain


def _mixes_channels(module: nn.Module) -> bool:
    """Whether a module is a convolution without bias, of one kernel or several, that is not depthwise."""
    if isinstance(module, HasExperts):
        return module.bias is None and module.kernel_shape[0] > 1
    return isinstance(module, nn.Conv2d) and module.bias is None and module.weight.shape[1] > 1


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class MuonConstructor:
    """Build an optimizer wrapper with :class:`MuonAdamW`.

    Args:
        optim_wrapper_cfg: as in mmengine; ``optimizer`` takes the arguments of MuonAdamW, and ``muon_lr``.
        paramwise_cfg: ``custom_keys`` as in mmengine: substring of a parameter's name -> ``lr_mult`` and
            ``decay_mult``; the longest matching one counts.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        self.config = dict(optim_wrapper_cfg)
        rules = dict(paramwise_cfg or {})
        self.custom_keys: dict[str, dict[str, float]] = dict(rules.pop("custom_keys", {}))
        if rules:
            raise ValueError(f"optim_wrapper.paramwise_cfg: got {', '.join(rules)}, allowed is custom_keys")
        for key, rule in self.custom_keys.items():
            if not set(rule) <= {"lr_mult", "decay_mult"}:
                raise ValueError(
                    f"optim_wrapper.paramwise_cfg.custom_keys.{key}: got {', '.join(rule)}, allowed are lr_mult and "
                    "decay_mult"
                )

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the wrapper for the trainable parameters of a model."""
        arguments = dict(self.config["optimizer"])
        if arguments.pop("type", "MuonAdamW") != "MuonAdamW":
            raise ValueError(
                f"optim_wrapper.optimizer.type: got {self.config['optimizer']['type']!r}, expected MuonAdamW"
            )
        mixing, decayed, plain = split_parameters(model)
        decay = arguments.get("weight_decay", MuonAdamW.WEIGHT_DECAY)
        lr = arguments.get("lr", MuonAdamW.LR)
        groups: list[dict[str, Any]] = [
            dict(params=mixing, muon=True, lr=arguments.pop("muon_lr", MuonAdamW.MUON_LR), weight_decay=decay),
            dict(params=decayed, lr=lr, weight_decay=decay),
            dict(params=plain, lr=lr, weight_decay=0.0),
        ]
        optimizer = MuonAdamW(self._apply_rules(model, groups), **arguments)
        wrapper_cfg = {key: value for key, value in self.config.items() if key not in ("optimizer", "constructor")}
        return OPTIM_WRAPPERS.build({"type": "OptimWrapper", **wrapper_cfg}, default_args=dict(optimizer=optimizer))

    def _apply_rules(self, model: nn.Module, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        for key in self.custom_keys:
            if not any(key in name for name in names.values()):
                raise ValueError(f"optim_wrapper.paramwise_cfg.custom_keys: got {key!r}, no parameter's name has it")
        result = []
        for group in groups:
            parts: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                matching = [key for key in self.custom_keys if key in names[id(parameter)]]
                rule = self.custom_keys[max(matching, key=len)] if matching else {}
                parts[rule.get("lr_mult", 1.0), rule.get("decay_mult", 1.0)].append(parameter)
            result += [
                {**group, "params": part, "lr": group["lr"] * lr, "weight_decay": group["weight_decay"] * decay}
                for (lr, decay), part in parts.items()
            ]
        return result
