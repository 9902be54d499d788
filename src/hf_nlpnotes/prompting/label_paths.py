"""Labels with levels, such as `体育/足球`: each level is decided among its siblings.

The probability of a path is the product over its levels, of each name among those that have the same parent,

    log P(体育/足球) = log P(体育 | 体育, 财经, …) + log P(足球 | 足球, 篮球, …),

so that the paths' probabilities add up to 1 whatever their depths, and a topic with many subtopics is not preferred.
Labels without levels are paths of one name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from .verbalizer import Verbalizer


@dataclass(frozen=True)
class LabelPaths:
    """Labels as paths through a tree of names.

    Args:
        labels (`tuple[str, ...]`):
            The labels.
        nodes (`tuple[str, ...]`):
            Every name with all names above it: `体育`, `体育/足球`, ….
        paths (`tuple[tuple[int, ...], ...]`):
            The nodes of each label, from the top.
        siblings (`tuple[tuple[int, ...], ...]`):
            The nodes that have the same parent.

    Made by `LabelPaths.of`.
    """

    labels: tuple[str, ...]
    nodes: tuple[str, ...]
    paths: tuple[tuple[int, ...], ...]
    siblings: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, labels: Sequence[str], separator: str | None = None) -> LabelPaths:
        """From distinct labels, split at `separator`; `None`: labels have no levels.

        Args:
            labels (`Sequence[str]`):
                The labels.
            separator (`str`, *optional*):
                What stands between the levels of a label.

        Raises:
            `ValueError`: a level without a name, or a label that is the beginning of another.

        >>> LabelPaths.of(["体育/足球", "体育/篮球", "财经"], "/").nodes
        ('体育', '体育/足球', '体育/篮球', '财经')
        """
        names = [[label] if separator is None else label.split(separator) for label in labels]
        nodes: dict[tuple[str, ...], int] = {}
        for label, own in zip(labels, names, strict=True):
            if not all(name.strip() for name in own):
                raise ValueError(f"The label {label!r} has a level without a name: write it as 'A{separator}B'.")
            for depth in range(1, len(own) + 1):
                nodes.setdefault(tuple(own[:depth]), len(nodes))
        paths = tuple(tuple(nodes[tuple(own[:depth])] for depth in range(1, len(own) + 1)) for own in names)
        inner = {node: label for path, label in zip(paths, labels, strict=True) for node in path[:-1]}
        for path, label in zip(paths, labels, strict=True):
            if path[-1] in inner:
                raise ValueError(
                    f"The label {label!r} is the beginning of {inner[path[-1]]!r}, so that both cannot be compared:"
                    f" write '{label}{separator}其他', or another name for the rest."
                )
        families: dict[tuple[str, ...], list[int]] = {}
        for node, index in nodes.items():
            families.setdefault(node[:-1], []).append(index)
        joined = tuple((separator or "").join(node) for node in nodes)
        return cls(tuple(labels), joined, paths, tuple(map(tuple, families.values())))

    def words(self, verbalizer: Verbalizer | None, separator: str | None = None) -> Verbalizer:
        """The words of each node: those of its path, else those of its own name, else the name.

        Args:
            verbalizer (`Verbalizer`, *optional*):
                The words that there are.
            separator (`str`, *optional*):
                As of `of`.
        """
        known: Mapping[str, Any] = {} if verbalizer is None else {
            label: dict(zip(own, weights, strict=True))
            for label, own, weights in zip(verbalizer.labels, verbalizer.words, verbalizer.weights, strict=True)
        }  # fmt: skip
        own_names = [node if separator is None else node.rpartition(separator)[2] for node in self.nodes]
        return Verbalizer.of(
            {node: known.get(node, known.get(name, name)) for node, name in zip(self.nodes, own_names, strict=True)}
        )

    def log_probabilities(self, scores: torch.Tensor) -> torch.Tensor:
        """Log-probability of each label, siblings against each other.

        Args:
            scores (`torch.Tensor` of shape `(N, nodes)`):
                Scores of the nodes.

        Returns:
            `torch.Tensor` of shape `(N, labels)`.
        """
        among = torch.empty_like(scores)
        for family in self.siblings:
            among[:, family] = scores[:, family].log_softmax(dim=1)
        return self._sums(among)

    def log_sigmoids(self, scores: torch.Tensor) -> torch.Tensor:
        """Logarithm of each label's own probability, every node by itself. Shapes as in `log_probabilities`.

        Args:
            scores (`torch.Tensor` of shape `(N, nodes)`):
                Scores of the nodes.
        """
        return self._sums(F.logsigmoid(scores))

    def _sums(self, values: torch.Tensor) -> torch.Tensor:
        return torch.stack([values[:, path].sum(dim=1) for path in self.paths], dim=1)
