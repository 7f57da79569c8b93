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
    from hw_profiles.placement import Placement
    from hw_profiles.profile import Fact, Profile, ProfileError, describe, json_schema, load, names
    from hw_profiles.rules import check
    from netx_export.result import Activity

_HOME = {
    "Cost": "energy",
    "Fact": "profile",
    "Figure": "energy",
    "Finding": "case",
    "Placement": "placement",
    "Profile": "profile",
    "ProfileError": "profile",
    "Report": "case",
    "check": "rules",
    "cost": "energy",
    "describe": "profile",
    "json_schema": "profile",
    "load": "profile",
    "names": "profile",
    "place": "families",
    "synaptic_operations": "energy",
}

__all__ = [
    "Activity",
    "Cost",
    "Fact",
    "Figure",
    "Finding",
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
]


def __getattr__(name: str) -> Any:
    # pydantic and numpy are imported at first use: the command line answers --help without them.
    if name == "Activity":
        from netx_export.result import Activity

        return Activity
    if name not in _HOME:
        raise AttributeError(f"module 'hw_profiles' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"hw_profiles.{_HOME[name]}"), name)
