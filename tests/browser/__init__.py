"""Tests of the page of a run in a real browser, and what they are made of."""
