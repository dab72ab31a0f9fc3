"""bay0: PID 1 of Alpine-Spline, a state-machine-centric orchestrator."""

__version__ = "0.1.0"
