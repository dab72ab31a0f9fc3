"""What was stored against what is there."""
