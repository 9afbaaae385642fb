"""Allocation: from a budget to the form of every layer."""
