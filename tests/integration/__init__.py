"""Tests of the command line on a real Docker engine; nothing in here imports cpost."""
