"""Shared by hz4-ab and compare: lanes, runs, tables, verdict, picture."""
