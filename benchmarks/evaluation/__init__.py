"""How many real questions an assistant answers rightly."""
