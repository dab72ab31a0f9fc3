"""Personas: `p://work`."""
