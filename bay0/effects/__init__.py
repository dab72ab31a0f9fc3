"""The only system calls and processes: everything that changes the machine outside /persist."""
