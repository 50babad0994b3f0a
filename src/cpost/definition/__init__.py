"""The room that reads Clara pipeline definitions: one file (and what it imports) in, one `Pipeline` out."""

from cpost.definition.loading import load

__all__ = ["load"]
