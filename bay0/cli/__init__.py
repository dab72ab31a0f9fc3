"""The command line: each verb is a thin client of the control socket, or reads for itself. Nothing outside but `__main__` imports it."""
