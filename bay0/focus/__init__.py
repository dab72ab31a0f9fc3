"""Which persona is in front."""
