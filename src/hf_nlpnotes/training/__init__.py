"""Training: parts that plug into the stock Trainer."""

from .checkpoints import is_whole, last_whole_checkpoint, whole_folder

__all__ = ["is_whole", "last_whole_checkpoint", "whole_folder"]
