"""The command line: the other end of the control socket. Nothing outside but `__main__` imports it."""
