"""`sys://ai` and its envelope."""
