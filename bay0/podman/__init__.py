"""podman as a judged, bounded queue of calls."""
