"""Models that transformers lacks."""
