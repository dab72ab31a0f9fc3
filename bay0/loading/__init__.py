"""What a program loads, and when."""
