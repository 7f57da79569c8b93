"""Losses of an answer beside its cross entropy: of every time step, and of what another configuration answers."""

from __future__ import annotations

import torch
import torch.nn.functional as F

TEMPERATURE = 3.0
"""Softens both sides of the divergence, whose square keeps its gradient in size: as in the authors' code."""


def of_steps(logits: torch.Tensor, labels: torch.Tensor, consistency: float) -> torch.Tensor:
    """Cross entropy of every time step, and how far the steps are from what they say together.

    Every prefix of the time steps is then a network of its own that has been told the label, and all are told the same
    soft answer: a network that serves any number of time steps, without other configurations and without a teacher.

    Source: Yu, Zhao, Liu, Yang, Wang, Li, Wang, "Efficient Logit-based Knowledge Distillation of Deep Spiking Neural
    Networks for Full-Range Timestep Deployment", ICML 2025 (arXiv 2501.15925), without its distillation from another
    network. There the logits of a step are what the last layer's weights make of its spikes; here too with a voltage
    readout, while a count readout has the output's spikes. Their code averages only the steps that are right, and here
    all of them are. Cross entropy at every step alone is that of temporal efficient training (Deng et al., ICLR 2022).

    Parameters
    ----------
    logits : torch.Tensor
        (T, N, classes), of every time step.
    labels : torch.Tensor
        (N,), integers.
    consistency : float
        Weight of the divergence from the average of the steps to each of them, at least 0; the authors' is 0.2.

    Returns
    -------
    torch.Tensor
        A number: mean over time steps and samples. No gradient flows into the average: it is what the steps follow.
    """
    loss = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)))
    if consistency:
        loss = loss + consistency * divergence(logits, logits.mean(0, keepdim=True))
    return loss


def divergence(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean Kullback-Leibler divergence from softened answers to others, KL(wanted || logits), times `TEMPERATURE` ** 2.

    Parameters
    ----------
    logits, wanted : torch.Tensor
        (..., N, classes), or what spreads to it. No gradient flows into `wanted`.
    """
    target = F.log_softmax(wanted.detach() / TEMPERATURE, -1).expand_as(logits)
    answer = F.log_softmax(logits / TEMPERATURE, -1)
    return TEMPERATURE**2 * F.kl_div(answer, target, reduction="none", log_target=True).sum(-1).mean()
