"""Ingest, survey, allocation, orchestration, command line and report."""
