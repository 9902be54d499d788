"""What models around any encoder share: its configuration inside of theirs, loading, and the inputs that it reads."""

from .configuration_around_encoder import AroundEncoderConfig
from .modeling_around_encoder import AroundEncoderPreTrainedModel, build_encoder, load_encoder
from .signature_around_encoder import names_encoder_inputs

__all__ = [
    "AroundEncoderConfig",
    "AroundEncoderPreTrainedModel",
    "build_encoder",
    "load_encoder",
    "names_encoder_inputs",
]
