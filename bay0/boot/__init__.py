"""The stages of a boot, what one boot hands to the next, its end, its sleep."""
