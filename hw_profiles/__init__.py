"""What neuromorphic chips and boards can do, with sources; whether a network fits them, where, and at what cost.

>>> from hw_profiles import check, load
>>> loihi2 = load("loihi2")
>>> loihi2.facts.reset.value
'zero'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hw_profiles.case import Finding, Report
    from hw_profiles.energy import Cost, Figure, cost, synaptic_operations
    from hw_profiles.families import place
    from hw_profiles.families.speck_sinabs import write_speck
    from hw_profiles.neurobench import NeuroBench, NeuroBenchCounter
    from hw_profiles.placement import Placement
    from hw_profiles.profile import Fact, Profile, ProfileError, describe, json_schema, load, names
    from hw_profiles.rules import check
    from netx_export.result import Activity

_HOME = {
    "Activity": "netx_export.result",
    "Cost": "hw_profiles.energy",
    "Fact": "hw_profiles.profile",
    "Figure": "hw_profiles.energy",
    "Finding": "hw_profiles.case",
    "NeuroBench": "hw_profiles.neurobench",
    "NeuroBenchCounter": "hw_profiles.neurobench",
    "Placement": "hw_profiles.placement",
    "Profile": "hw_profiles.profile",
    "ProfileError": "hw_profiles.profile",
    "Report": "hw_profiles.case",
    "check": "hw_profiles.rules",
    "cost": "hw_profiles.energy",
    "describe": "hw_profiles.profile",
    "json_schema": "hw_profiles.profile",
    "load": "hw_profiles.profile",
    "names": "hw_profiles.profile",
    "place": "hw_profiles.families",
    "synaptic_operations": "hw_profiles.energy",
    "write_speck": "hw_profiles.families.speck_sinabs",
}

__all__ = [
    "Activity",
    "Cost",
    "Fact",
    "Figure",
    "Finding",
    "NeuroBench",
    "NeuroBenchCounter",
    "Placement",
    "Profile",
    "ProfileError",
    "Report",
    "check",
    "cost",
    "describe",
    "json_schema",
    "load",
    "names",
    "place",
    "synaptic_operations",
    "write_speck",
]


def __getattr__(name: str) -> Any:
    # pydantic and numpy are imported at first use: the command line answers --help without them.
    if name not in _HOME:
        raise AttributeError(f"module 'hw_profiles' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
