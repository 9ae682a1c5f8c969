from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from efftasks.engine.optimizers import MuonAdamW, MuonConstructor, orthogonalize, split_parameters
from efftasks.models.layers.cond_conv import CondConv2d


def plain_newton_schulz(matrix: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The iteration as its author writes it down, in float64."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.double()
    x = x if x.shape[0] <= x.shape[1] else x.T
    x = x / x.norm()
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


@pytest.mark.parametrize("shape", [(8, 8), (16, 72), (64, 16), (1, 5)])
def test_orthogonalize_equals_the_plain_iteration(shape):
    torch.manual_seed(0)
    matrices = torch.randn(3, *shape)
    expected = torch.stack([plain_newton_schulz(m) for m in matrices])
    assert_close(orthogonalize(matrices).double(), expected, atol=2e-4, rtol=1e-3)


def test_singular_values_are_near_one_and_vectors_stay():
    torch.manual_seed(0)
    matrix = torch.randn(1, 32, 200)
    result = orthogonalize(matrix)
    values = torch.linalg.svdvals(result[0])
    assert values.min() > 0.6 and values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix[0], full_matrices=False)
    aligned = u.T @ result[0] @ v.T
    assert_close(aligned, torch.diag(torch.diagonal(aligned)), atol=1e-3, rtol=0)


def test_adamw_part_equals_torch():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3), nn.Linear(5, 3)
    theirs.load_state_dict(ours.state_dict())
    a = MuonAdamW([dict(params=list(ours.parameters()))], lr=0.01, weight_decay=0.1)
    b = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.1, betas=(0.9, 0.99))
    for _ in range(10):
        x = torch.randn(4, 5)
        for model, optimizer in ((ours, a), (theirs, b)):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    assert_close(ours.weight, theirs.weight, atol=1e-6, rtol=1e-5)
    assert_close(ours.bias, theirs.bias, atol=1e-6, rtol=1e-5)


def test_muon_part_by_hand():
    weight = nn.Parameter(torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0)))
    start, gradient = weight.detach().clone(), torch.randn(4, 2, 3, 3)
    optimizer = MuonAdamW([dict(params=[weight], muon=True, lr=0.1, weight_decay=0.5)], momentum=0.9)
    weight.grad = gradient.clone()
    optimizer.step()
    # First step: momentum is the gradient, Nesterov adds 0.9 of it; scaling does not change the direction.
    update = plain_newton_schulz(gradient.reshape(4, 18)).reshape(4, 2, 3, 3).float()
    assert_close(weight.detach(), start * (1 - 0.1 * 0.5) - 0.1 * update, atol=1e-4, rtol=1e-3)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon to compare with")
@pytest.mark.parametrize("shape", [(48, 12), (12, 48), (24, 24)], ids=["tall", "wide", "square"])
def test_muon_part_equals_torch(shape):
    """Five steps with gradients that turn: momentum, Nesterov's step, decay and the factor of tall matrices."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    options: dict[str, Any] = dict(lr=0.1, weight_decay=0.3, momentum=0.8)
    a = MuonAdamW([dict(params=[ours], muon=True)], **options)
    b = torch.optim.Muon([theirs], **options)
    for _ in range(5):
        gradient = torch.randn(shape, generator=generator)
        before = ours.detach().clone(), theirs.detach().clone()
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        a.step()
        b.step()
        steps = ours.detach() - before[0], theirs.detach() - before[1]
        # torch iterates in bfloat16. Without Nesterov's step the difference is 0.4, without the factor 0.5.
        assert (steps[0] - steps[1]).norm() < 0.03 * steps[1].norm()


def test_state_survives_saving():
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 8, 8) for _ in range(6)]

    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, part: list[torch.Tensor]) -> None:
        for x in part:
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()

    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
        wrapper = MuonConstructor(dict(type="OptimWrapper", optimizer=dict(type="MuonAdamW", lr=1e-2)))(model)
        return model, wrapper.optimizer

    straight, optimizer = make()
    steps(straight, optimizer, inputs)
    first, optimizer = make()
    steps(first, optimizer, inputs[:3])
    second, resumed = make()
    second.load_state_dict(first.state_dict())
    resumed.load_state_dict(optimizer.state_dict())
    steps(second, resumed, inputs[3:])
    assert all(torch.equal(a, b) for a, b in zip(straight.state_dict().values(), second.state_dict().values()))


def test_which_parameters_go_where():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, groups=8, bias=False),
        nn.Conv2d(8, 2, 1),
        nn.Linear(2, 2),
    )
    mixing, decayed, plain = split_parameters(model)
    assert {id(p) for p in mixing} == {id(model[0].weight), id(model[4].weight)}
    assert {id(p) for p in decayed} == {id(model[2].weight), id(model[3].weight)}
    assert len(plain) == 4 and sum(map(len, (mixing, decayed, plain))) == len(list(model.parameters()))


def test_experts_are_matrices_of_their_own_and_their_router_has_no_decay():
    pointwise, depthwise = CondConv2d(6, 4, experts=3), CondConv2d(4, 4, (3, 3), groups=4, experts=3)
    mixing, decayed, plain = split_parameters(nn.Sequential(pointwise, depthwise, CondConv2d(6, 4, bias=True)))
    assert {id(p) for p in mixing} == {id(pointwise.weight)}
    assert [p.dim() for p in decayed] == [3, 3] and {id(p) for p in decayed} >= {id(depthwise.weight)}
    assert {id(pointwise.router), id(pointwise.router_bias)} <= {id(p) for p in plain}
    # Each moves as the kernel of a plain convolution.
    kernels = [nn.Parameter(kernel.clone()) for kernel in pointwise.weight.detach()]
    single = nn.Parameter(torch.randn(4, 6, 1, 1))  # the same shape
    optimizers = [MuonAdamW([dict(params=params, muon=True)]) for params in ([pointwise.weight, single], kernels)]
    for _ in range(2):
        gradient = torch.randn(pointwise.weight.shape)
        pointwise.weight.grad, single.grad = gradient, torch.randn(4, 6, 1, 1)
        for kernel, part in zip(kernels, gradient, strict=True):
            kernel.grad = part.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert_close(pointwise.weight.detach(), torch.stack([kernel.detach() for kernel in kernels]), atol=1e-6, rtol=1e-5)


def test_wrong_config_is_named():
    with pytest.raises(ValueError, match="expected MuonAdamW"):
        MuonConstructor(dict(optimizer=dict(type="SGD", lr=0.1)))(nn.Linear(1, 1))
    config = dict(optimizer=dict(type="MuonAdamW"))
    with pytest.raises(ValueError, match="paramwise_cfg: got norm_decay_mult, allowed is custom_keys"):
        MuonConstructor(config, dict(norm_decay_mult=0))
    with pytest.raises(ValueError, match=r"custom_keys\.a: got lr, allowed are lr_mult and decay_mult"):
        MuonConstructor(config, dict(custom_keys=dict(a=dict(lr=1.0))))
    with pytest.raises(ValueError, match=r"got 'backbon\.', no parameter's name has it"):
        MuonConstructor(config, dict(custom_keys={"backbon.": dict(lr_mult=0.1)}))(nn.Linear(1, 1))


def test_rules_by_name_scale_rate_and_decay():
    model = nn.ModuleDict(
        dict(
            backbone=nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)),
            head=nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.Conv2d(4, 2, 1)),
        )
    )
    rules = {"backbone": dict(lr_mult=0.1), "backbone.0": dict(lr_mult=0.5, decay_mult=0.0)}
    config = dict(optimizer=dict(type="MuonAdamW", lr=1e-3, muon_lr=0.02, weight_decay=0.1))
    groups = MuonConstructor(config, dict(custom_keys=rules))(model).optimizer.param_groups
    found = {id(p): (g["muon"], g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    expected = {
        "backbone.0.weight": (True, 0.02 * 0.5, 0.0),  # the longer part counts
        "backbone.1.weight": (False, 1e-3 * 0.1, 0.0),
        "backbone.1.bias": (False, 1e-3 * 0.1, 0.0),
        "head.0.weight": (True, 0.02, 0.1),
        "head.1.weight": (False, 1e-3, 0.1),
        "head.1.bias": (False, 1e-3, 0.0),
    }
    for name, parameter in model.named_parameters():
        assert found[id(parameter)] == pytest.approx(expected[name])


def test_parameters_without_a_gradient_at_times_have_their_own_bias_correction():
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(3)) for _ in range(2)]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    a = MuonAdamW([dict(params=ours)], lr=0.01, weight_decay=0.1)
    b = torch.optim.AdamW(theirs, lr=0.01, weight_decay=0.1, betas=(0.9, 0.99))
    for step in range(6):
        gradients = [torch.randn(3), torch.randn(3) if step >= 3 else None]
        for params, optimizer in ((ours, a), (theirs, b)):
            for parameter, gradient in zip(params, gradients):
                parameter.grad = None if gradient is None else gradient.clone()
            optimizer.step()
    for mine, other in zip(ours, theirs):
        assert_close(mine, other, atol=1e-6, rtol=1e-5)
