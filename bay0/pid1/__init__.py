"""What makes a Python process a good PID 1: the reactor, the reaper of children, flows."""
