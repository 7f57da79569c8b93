"""Whether a network fits a chip: all findings of all rules of its family at once.

Layers are placed on cores (`placement`), and what no core can hold is a violation.
"""

from __future__ import annotations

import dataclasses

from hw_profiles.case import Case, Report, Severity
from hw_profiles.families import FAMILIES, place
from hw_profiles.profile import Profile, ProfileError
from netx_export.network import Network

_ORDER: tuple[Severity, ...] = ("violation", "warning", "not checked", "note")


def check(
    network: Network,
    profile: Profile,
    time_steps: int | None = None,
    input_payload: int | None = None,
    *,
    trained: bool = True,
) -> Report:
    """Check a network against a profile.

    Parameters
    ----------
    network : netx_export.network.Network
        Integers as the chip has them.
    profile : Profile
    time_steps : int, optional
        How many time steps a sample takes.
    input_payload : int, optional
        Largest value in the input (1: binary spikes).
    trained : bool
        False: weights, thresholds and biases are not known yet; the rules about them (``of_training``) are left out.

    Returns
    -------
    Report
        All findings of all rules; ``report.fits``, ``str(report)``, ``report.to_dict()``.

    Raises
    ------
    ProfileError
        `time_steps` or `input_payload` is not positive.
    """
    for name, value in (("time_steps", time_steps), ("input_payload", input_payload)):
        if value is not None and value < 1:
            raise ProfileError(f"{name} must be at least 1, got {value}")
    family = FAMILIES[profile.family]
    case = Case(network, profile, place(network, profile), time_steps, input_payload)
    rules = [rule for rule in family.rules if trained or rule not in family.of_training]
    findings = [dataclasses.replace(finding, rule=rule.__name__) for rule in rules for finding in rule(case)]
    findings.sort(key=lambda finding: _ORDER.index(finding.severity))
    return Report(network.source, profile.name, tuple(findings), case.placement)
