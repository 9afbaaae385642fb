"""Removal: filters that leave the graph, and whatever reads them less."""
