"""Training: parts that plug into the stock Trainer."""

from .checkpoints import claim_folder, is_whole, last_whole_checkpoint, whole_folder

__all__ = ["claim_folder", "is_whole", "last_whole_checkpoint", "whole_folder"]
