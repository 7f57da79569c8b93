"""What neuromorphic chips and boards can do, with sources, and whether a network fits them.

>>> from hw_profiles import check, load
>>> loihi2 = load("loihi2")
>>> loihi2.facts.reset.value
'zero'
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hw_profiles.profile import Fact, Profile, ProfileError, describe, json_schema, load, names
    from hw_profiles.rules import Finding, Report, check

__all__ = [
    "Fact",
    "Finding",
    "Profile",
    "ProfileError",
    "Report",
    "check",
    "describe",
    "json_schema",
    "load",
    "names",
]


def __getattr__(name: str) -> Any:
    # pydantic and numpy are imported at first use: the command line answers --help without them.
    if name not in __all__:
        raise AttributeError(f"module 'hw_profiles' has no attribute {name!r}")
    from hw_profiles import profile, rules

    return getattr(rules if name in ("Finding", "Report", "check") else profile, name)
