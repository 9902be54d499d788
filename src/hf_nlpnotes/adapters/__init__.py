"""Extra modules in a frozen model: bottleneck adapters as a method of PEFT, and what PEFT's own methods lack.

`import hf_nlpnotes` registers the method, so that PEFT's functions know `BottleneckAdapterConfig` as they know
`LoraConfig`. Needs PEFT: `pip install peft`.
"""

from .configuration import BottleneckAdapterConfig
from .layer import BottleneckAdapterLayer
from .model import BottleneckAdapterModel
from .new_layers import new_layers
from .placement import SubLayers, sub_layers
from .prompt_learning import prepare_prompt_learning
from .unfrozen import save_unfrozen_layers, unfrozen_parameters

__all__ = [
    "BottleneckAdapterConfig",
    "BottleneckAdapterLayer",
    "BottleneckAdapterModel",
    "SubLayers",
    "new_layers",
    "prepare_prompt_learning",
    "save_unfrozen_layers",
    "sub_layers",
    "unfrozen_parameters",
]
