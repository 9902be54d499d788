"""Any encoder with a question-answering head that judges the first and the last token of an answer together."""

from .configuration_joint_span import JointSpanConfig
from .modeling_joint_span import JointSpanForQuestionAnswering, JointSpanModelOutput

__all__ = ["JointSpanConfig", "JointSpanForQuestionAnswering", "JointSpanModelOutput"]
