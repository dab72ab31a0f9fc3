"""Pressure and heat: who is restrained, and why."""
