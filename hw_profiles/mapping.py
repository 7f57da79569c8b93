"""Placing a network on a chip of any family."""

from __future__ import annotations

from hw_profiles.geometry import NetworkLike
from hw_profiles.loihi import place_on_loihi
from hw_profiles.placement import Placement
from hw_profiles.profile import Profile
from hw_profiles.speck import place_on_speck


def place(network: NetworkLike, profile: Profile) -> Placement:
    """Place a network on the cores of a chip or board.

    Parameters
    ----------
    network : netx_export.network.Network, or anything with such layers
    profile : Profile

    Returns
    -------
    Placement
        As far as it goes: what fits nowhere is in its ``demands`` and ``rivals``. No core holds more than its limits.
    """
    for layer in network.layers:
        if layer.kind not in ("conv", "dense", "pool", "flatten", "average"):
            return Placement(profile, reason=f"{layer.name} is a layer of kind {layer.kind!r}, which is unknown")
        if layer.kind in ("conv", "dense") and layer.neuron is None:
            return Placement(profile, reason=f"{layer.name} has no neurons")
        if layer.kind == "pool" and profile.family == "loihi":
            return Placement(profile, reason=f"{layer.name} is a pool without neurons: write it as a convolution")
    return (place_on_speck if profile.family == "speck" else place_on_loihi)(network.layers, profile)
