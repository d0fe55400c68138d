"""The packaged student, as benchmarks train and score it: plain prompts, so that peers read the same text."""

from pathlib import Path

from drllama.recipe import Student
from drllama.students.catalogue import STUDENTS, converted_folder
from drllama.students.chat import phrasing_of
from drllama.students.encoding import Encoder, make_encoder
from drllama.students.loading import load_tokenizer
from drllama.types import Task

STUDENT = Student(chat="no")


def encoder_for(task: Task) -> Encoder:
    """Return what turns questions into the tokens that the student reads."""
    tokenizer = load_tokenizer(STUDENT)
    return make_encoder(tokenizer, phrasing_of(tokenizer, STUDENT, task), task, STUDENT)


def weights_folder() -> Path:
    """Return where the student's weights lie in transformers' format, for peers."""
    (sha256,) = [one.sha256 for one in STUDENTS if one.name == STUDENT.model]
    return converted_folder(str(sha256))
