"""The event-driven simulator: no clock, one event at a time; in one run, or in a session that answers at any moment."""

from netx_export.event.events import Events, load_events
from netx_export.event.plan import ChipRules, Program
from netx_export.event.session import Answer, Session

__all__ = ["Answer", "ChipRules", "Events", "Program", "Session", "load_events"]
