"""Who may speak to the AI, and the other program that carries what is said."""
