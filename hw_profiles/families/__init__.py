"""The families of chips, in one table: what a new one adds is its module of placement, its rules, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hw_profiles import common_rules
from hw_profiles.case import Rule
from hw_profiles.families import akida_rules, loihi_rules, processor_rules, speck_rules, xylo_rules
from hw_profiles.families.loihi import place_on_loihi
from hw_profiles.families.speck import place_on_speck
from hw_profiles.placement import Placement
from hw_profiles.profile import Profile
from netx_export.network import Network, NetworkError


@dataclass(frozen=True)
class Family:
    """Chips that place networks by the same rules.

    Parameters
    ----------
    place : callable
        Puts a network on cores; raises a NetworkError that says why it cannot.
    rules, of_training : tuple and frozenset of Rule
        All, and those about what training decides.
    """

    place: Callable[[Network, Profile], Placement]
    rules: tuple[Rule, ...]
    of_training: frozenset[Rule]


def _by_its_own_tools(network: Network, profile: Profile) -> Placement:
    raise NetworkError(f"the tools of {profile.name} place its neurons")


FAMILIES = {
    "loihi": Family(
        place_on_loihi,
        (*common_rules.RULES, *loihi_rules.RULES),
        common_rules.OF_TRAINING | loihi_rules.OF_TRAINING,
    ),
    "speck": Family(
        place_on_speck,
        (*common_rules.RULES, *speck_rules.RULES),
        common_rules.OF_TRAINING | speck_rules.OF_TRAINING,
    ),
    "xylo": Family(_by_its_own_tools, xylo_rules.RULES, common_rules.OF_TRAINING | xylo_rules.OF_TRAINING),
    "akida": Family(_by_its_own_tools, akida_rules.RULES, common_rules.OF_TRAINING | akida_rules.OF_TRAINING),
    "processor": Family(_by_its_own_tools, processor_rules.RULES, common_rules.OF_TRAINING),
}
"""By the name that profiles give."""


def place(network: Network, profile: Profile) -> Placement:
    """Place a network on the cores of a chip or board.

    Parameters
    ----------
    network : netx_export.network.Network
    profile : Profile

    Returns
    -------
    Placement
        As far as it goes: what fits nowhere is in its ``demands`` and ``rivals``. No core holds more than its limits.
    """
    try:
        return FAMILIES[profile.family].place(network, profile)
    except NetworkError as error:
        return Placement(profile, reason=str(error))
