"""The room that reads pipelines of four formats: one file (and what it imports) in, one `Pipeline` out."""

from cpost.definition.loading import load

__all__ = ["load"]
