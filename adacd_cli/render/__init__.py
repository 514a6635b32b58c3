"""Draws events: functions over an iterator of events and a text stream; it knows rich, never torch."""
