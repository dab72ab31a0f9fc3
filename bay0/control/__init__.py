"""The control socket: frames, fairness, answers."""
