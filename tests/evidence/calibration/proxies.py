"""Zero-cost proxies of a network at initialisation, as their papers define them: the rivals of the law's numbers.

Scores on ``ROWS`` rows of the training set, one network at a time, each with the processor time it took (milliseconds).
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor, nn

from . import tasks
from .tasks import Task

ROWS = 64


def grad_norm(network: nn.Sequential, task: Task) -> float:
    """Norm of the gradient of the loss in all parameters (Abdelfattah et al. 2021, arXiv 2101.08134)."""
    y = task.y[:ROWS] if task.is_classification else task.y[:ROWS].unsqueeze(1)
    loss = tasks.loss_module(task)(network(task.x[:ROWS]), y)
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    return float(torch.cat([g.flatten() for g in gradients]).double().norm())


def naswot(network: nn.Sequential, task: Task) -> float:
    """Log-determinant of the kernel of the binary codes of the ReLUs (Mellor et al. 2021, arXiv 2006.04647v3)."""
    kernel = torch.zeros(ROWS, ROWS, dtype=torch.float64)
    h = task.x[:ROWS]
    with torch.no_grad():
        for layer in network:
            h = layer(h)
            if isinstance(layer, nn.ReLU):
                code = (h > 0).double()
                kernel += code @ code.T + (1 - code) @ (1 - code).T
    sign, logarithm = np.linalg.slogdet(kernel.numpy())
    return float(logarithm) if sign > 0 else -np.inf


def synflow(network: nn.Sequential, task: Task) -> float:
    """Natural log of ``sum |theta dR/dtheta|``, R the output's sum on ones with all weights positive (Tanaka et al. 2020, arXiv 2006.05467)."""
    parameters = [p.detach().double().abs().requires_grad_() for p in network.parameters()]
    h: Tensor = torch.ones(1, task.x.shape[1], dtype=torch.float64)
    for w, b in zip(parameters[::2], parameters[1::2], strict=True):
        h = h @ w.T + b
    gradients = torch.autograd.grad(h.sum(), parameters)
    total = sum((p.detach() * g).sum() for p, g in zip(parameters, gradients, strict=True))
    return float(torch.as_tensor(total).log())


def jacob_cov(network: nn.Sequential, task: Task) -> float:
    """``-sum(ln(e + k) + 1/(e + k))``, e the eigenvalues of the correlations of the rows' Jacobians (Mellor et al. 2020, arXiv 2006.04647v1)."""
    x = task.x[:ROWS].clone().requires_grad_()
    (jacobian,) = torch.autograd.grad(network(x).sum(), x)
    rows = jacobian.double().numpy()
    if not np.isfinite(rows).all() or (rows.std(1) == 0).any():
        return -np.inf
    values = np.linalg.eigvalsh(np.corrcoef(rows)).clip(0) + 1e-5
    return float(-(np.log(values) + 1 / values).sum())


PROXIES = (grad_norm, naswot, synflow, jacob_cov)
NAMES = tuple(proxy.__name__ for proxy in PROXIES)


def measured(network: nn.Sequential, task: Task) -> tuple[list[float], list[float]]:
    """Return the proxies' scores and their costs in milliseconds."""
    scores, costs = [], []
    for proxy in PROXIES:
        started = time.process_time()
        scores.append(proxy(network, task))
        costs.append(1e3 * (time.process_time() - started))
    return scores, costs
