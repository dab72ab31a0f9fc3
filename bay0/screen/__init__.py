"""The screen: seat and compositor, what is said to them without a library, and the proof of who answers."""
