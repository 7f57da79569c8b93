"""The event-driven simulator: no clock, one event at a time."""
