"""An upgrade of the spine: the other slot is written, tried once, and found good, or the machine goes back."""
