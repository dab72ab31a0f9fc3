"""The checks of `bay0 --validate`."""
