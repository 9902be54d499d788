"""Any encoder with a conditional random field on its token classifier."""

from .configuration_crf import CrfConfig
from .modeling_crf import CrfForTokenClassification

__all__ = ["CrfConfig", "CrfForTokenClassification"]
