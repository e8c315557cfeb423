"""The seeded simulator, and the checker that judges what it sees."""
