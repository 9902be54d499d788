"""Make PEFT know bottleneck adapters, and this project's models.

`peft.utils.register_peft_method` is PEFT's own way for a method, but it takes only names that are members of the
enumeration `PeftType`, and PEFT has no hook for new ones. So the member is added here, as Python's `enum` does it
when the class is built; methods and configurations of PEFT are left as they are.
"""

from __future__ import annotations

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import PeftType, constants, register_peft_method

from .configuration import NAME, BottleneckAdapterConfig
from .model import BottleneckAdapterModel

# What PEFT has for other architectures, but not for BERT and its descendants.
_MISSING = {"LNTUNING": ["LayerNorm"], "OSF": ["query", "key", "value", "dense"]}


def register_adapters() -> None:
    """Register bottleneck adapters with PEFT. Safe to call again.

    Raises:
        RuntimeError: when another package has registered a method of the same name.
    """
    registered = PEFT_TYPE_TO_CONFIG_MAPPING.get(NAME.upper())  # type: ignore[call-overload]
    if registered is BottleneckAdapterConfig:
        return
    if registered is not None:
        raise RuntimeError(f"PEFT has a method {NAME!r} of another package already: {registered.__module__}")
    if NAME.upper() not in PeftType.__members__:
        add_peft_type(NAME.upper())
    register_peft_method(
        name=NAME, config_cls=BottleneckAdapterConfig, model_cls=BottleneckAdapterModel, prefix=f"{NAME}_"
    )


def add_peft_type(name: str) -> None:
    """Add a member, named as its value, to `peft.utils.PeftType`."""
    member = str.__new__(PeftType, name)
    member._name_ = name
    member._value_ = name
    member.__objclass__ = PeftType  # type: ignore[attr-defined]  # as enum sets it
    setattr(PeftType, name, member)  # before the map: enum refuses to reassign members
    PeftType._member_names_.append(name)
    PeftType._member_map_[name] = member
    PeftType._value2member_map_[name] = member


def register_targets(model_type: str, like: str = "bert") -> None:
    """Give each of PEFT's methods the same default targets for `model_type` as it has for the model type `like`.

    Entries that are there already stay.
    """
    for name in dir(constants):
        table = getattr(constants, name)
        if name.startswith("TRANSFORMERS_MODELS_TO_") and isinstance(table, dict) and like in table:
            table.setdefault(model_type, table[like])
    for method, targets in _MISSING.items():
        getattr(constants, f"TRANSFORMERS_MODELS_TO_{method}_TARGET_MODULES_MAPPING").setdefault(model_type, targets)
