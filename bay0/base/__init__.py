"""What everything uses and what uses nothing of ours: errors, bounds, names."""
