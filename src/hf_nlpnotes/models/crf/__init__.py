"""Any encoder with a conditional random field on its token classifier."""

from .configuration_crf import CrfConfig
from .modeling_crf import CrfForTokenClassification, CrfTokenClassifierOutput

__all__ = ["CrfConfig", "CrfForTokenClassification", "CrfTokenClassifierOutput"]
