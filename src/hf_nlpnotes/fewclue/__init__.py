"""FewCLUE: seven few-shot tasks of Chinese as data, their files, and the figures of an evaluation.

`hf_nlpnotes.fewclue.runs` runs them, zero-shot and few-shot.
"""

from .results import Run, Summary, TaskResult, accuracy, majority, means, summary, table
from .tasks import TASKS, TNEWS_TOPICS, FewClueTask, TaskDefinition, find_tasks, load_task, read_prompts

__all__ = [
    "TASKS",
    "TNEWS_TOPICS",
    "FewClueTask",
    "Run",
    "Summary",
    "TaskDefinition",
    "TaskResult",
    "accuracy",
    "find_tasks",
    "load_task",
    "majority",
    "means",
    "read_prompts",
    "summary",
    "table",
]
