"""Proving: what was made equals, or is close to, what was given."""
