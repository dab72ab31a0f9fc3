"""The life of a container that we started, whatever kind of machine it belongs to."""
