import numpy as np
import torch
from torch.testing import assert_close

from efftasks.models.losses.residual_log_likelihood import RealNVP, ResidualLogLikelihood


def test_the_flow_is_a_density():
    flow = RealNVP().double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(1.5)
        side = torch.linspace(-12, 12, 301, dtype=torch.float64)
        grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1)
        mass = flow.log_prob(grid).exp().sum() * (side[1] - side[0]) ** 2
    assert_close(mass, torch.tensor(1.0, dtype=torch.float64), atol=1e-3, rtol=0)


def test_a_flow_that_changes_nothing_is_the_normal_density():
    flow = RealNVP()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.zero_()
    points = torch.tensor([[0.0, 0.0], [1.0, -2.0]])
    expected = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2)).log_prob(points)
    assert_close(flow.log_prob(points), expected)


def test_the_loss_by_hand():
    loss = ResidualLogLikelihood(weight=2.0)
    with torch.no_grad():
        for parameter in loss.flow.parameters():
            parameter.zero_()
    residual = torch.tensor([[[0.1, -0.2], [5.0, 5.0]]])
    spreads = torch.zeros(1, 2, 2)  # a spread of 0.52
    weights = torch.tensor([[0.25, 0.0]])
    error = np.array([0.1, 0.2]) / 0.52
    laplace = 2 * np.log(2 * 0.52) + error.sum()
    normal = -0.5 * (error**2).sum() - np.log(2 * np.pi)
    assert_close(loss(residual, spreads, weights), torch.tensor(2.0 * 0.25 * (laplace - normal), dtype=torch.float32))


def test_spreads_learn_the_size_of_errors():
    # Errors are ten times as large in y: the spread must be, too, where the flow does not answer for it.
    generator = torch.Generator().manual_seed(0)
    loss = ResidualLogLikelihood()
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.zero_()
    spreads = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.Adam([spreads], lr=0.1)
    for _ in range(120):
        residual = torch.randn(256, 1, 2, generator=generator) * torch.tensor([0.05, 0.5])
        value = loss(residual, spreads.expand(256, 1, 2), torch.full((256, 1), 1 / 256))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    x, y = (spreads.detach().sigmoid() + 0.02).tolist()
    assert 9 < y / x < 11


def test_what_is_not_annotated_has_no_gradient():
    loss = ResidualLogLikelihood()
    residual = torch.tensor([[[1e30, 1e30]]], requires_grad=True)
    value = loss(residual, torch.zeros(1, 1, 2), torch.zeros(1, 1))
    value.backward()
    assert value == 0 and residual.grad is not None and residual.grad.abs().sum() == 0
