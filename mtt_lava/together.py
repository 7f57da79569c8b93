"""Sums over the processes of a training, where there are several: statistics of a mini-batch are those of all of it."""

from __future__ import annotations

import torch

_processes = 1


def join(processes: int) -> None:
    """From now on that many processes train the same network on other parts of each mini-batch; 1: none but this."""
    global _processes
    _processes = processes


def several() -> bool:
    """Whether other processes train the same network."""
    return _processes > 1


def summed(values: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, the same in each; a gradient passes as through any sum."""
    return _Summed.apply(values) if several() else values


class _Summed(torch.autograd.Function):
    """Every process uses the sum: so what each sends back adds up as well."""

    @staticmethod
    def forward(ctx: object, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: torch.Tensor) -> torch.Tensor:
        total = gradients[0].clone()
        torch.distributed.all_reduce(total)
        return total
