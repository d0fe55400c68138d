"""What travels between the parts: frozen, keyword-only values, each field documented under it.

What users write is pydantic (``recipe``); what travels is here; what is stored is JSON made from it by ``store``.
"""

from drllama.types.answers import (
    ClassScores,
    Comparison,
    Estimate,
    Evaluation,
    Outcome,
    Prediction,
    ReliabilityBin,
)
from drllama.types.batches import BatchRecord, OpenBatch
from drllama.types.questions import (
    Example,
    Label,
    Origin,
    Original,
    SplitName,
    Splits,
    Synthetic,
    Task,
)
from drllama.types.runs import (
    Arm,
    ArmName,
    Epoch,
    Finetuned,
    Run,
    StepRecord,
    StudentCard,
    Taught,
)
from drllama.types.teaching import (
    Audit,
    Candidate,
    FailureKind,
    Finish,
    Message,
    Reply,
    ReplyForm,
    Sampling,
    TeacherCall,
    TeacherRequest,
    Unparsed,
)

__all__ = [
    "Arm",
    "ArmName",
    "Audit",
    "BatchRecord",
    "Candidate",
    "ClassScores",
    "Comparison",
    "Epoch",
    "Estimate",
    "Evaluation",
    "Example",
    "FailureKind",
    "Finetuned",
    "Finish",
    "Label",
    "Message",
    "OpenBatch",
    "Origin",
    "Original",
    "Outcome",
    "Prediction",
    "ReliabilityBin",
    "Reply",
    "ReplyForm",
    "Run",
    "Sampling",
    "SplitName",
    "Splits",
    "StepRecord",
    "StudentCard",
    "Synthetic",
    "Task",
    "Taught",
    "TeacherCall",
    "TeacherRequest",
    "Unparsed",
]
