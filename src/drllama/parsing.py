"""Reading what a model wrote: what was asked for, or ``Unparsed`` with the reason.

Nothing is ever filled in, but by the paper's two readers, which are here so that their effect can be seen.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import regex

from drllama.text import holds_word
from drllama.types import Judgement, Label, Reader, Task, Unparsed

# Words before the object may hold a brace of their own, as in "the set {1, 2}".
_OPENING = regex.compile(r'\{\s*["}]')
# Possessive: a reply of a hundred thousand spaces is looked through once.
_MARKS = regex.compile(r"[\W_]*+")
_LEAD = regex.compile(
    r"(?<![\p{L}\p{N}])(?:answer(?: to (?:the|this|your) question)?|label)[\"'*_ \t]*+"
    r"(?:[:：=\r\n]|is(?![\p{L}\p{N}]))[\W_]*+",
    regex.IGNORECASE,
)
_HEADING = regex.compile(r"[\W_]*+[\p{L}\p{M}]++(?: [\p{L}\p{M}]++){0,2}[*_ ]*+[:：][\W_]*+")
_ENDED = r"""["'”’»_]*+[ \t]*+(?:$|[\r\n.,;:!?()\]*…。，、；：！？]|[-–—](?=\s))"""
_ENDED_IN_LIST = rf"(?:{_ENDED}|\s+(?:or|and)\s)"
_LISTED = regex.compile(r"[\W_]*+(?:(?:or|and)\s++)?+", regex.IGNORECASE)
_HALF_CHARACTER = regex.compile(r"[\ud800-\udfff]")
_BROKEN = "a JSON object that doesn't end or is broken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Retold:
    """A question in other words."""

    question: str
    long_answer: str
    context: str | None
    """None where the context wasn't to be retold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invented:
    """A new question with its answer."""

    question: str
    label: Label
    long_answer: str
    options: tuple[str, ...] = ()
    """In the order of the labels; none where they speak for themselves."""


def reply_schema(fields: Mapping[str, object]) -> dict[str, object]:
    """Return the JSON schema of an object with exactly these fields."""
    return {
        "type": "object",
        "properties": dict(fields),
        "required": list(fields),
        "additionalProperties": False,
    }


def rewrite_schema(*, retell_context: bool) -> dict[str, object]:
    """Return the JSON schema of a rewrite."""
    names = ["question", "long_answer", *(["context"] if retell_context else [])]
    return reply_schema({name: {"type": "string"} for name in names})


def new_schema(labels: Sequence[Label], count: int, *, with_options: bool) -> dict[str, object]:
    """Return the JSON schema of ``count`` new questions."""
    text, number = {"type": "string"}, len(labels)
    options = {"options": {"type": "array", "items": text, "minItems": number, "maxItems": number}}
    fields = {"question": text, **(options if with_options else {}), "label": {"enum": list(labels)}}
    item = reply_schema({**fields, "long_answer": text})
    return reply_schema({"items": {"type": "array", "items": item, "minItems": count, "maxItems": count}})


def answer_schema(labels: Sequence[Label]) -> dict[str, object]:
    """Return the JSON schema of a blind answer."""
    return reply_schema({"label": {"enum": list(labels)}})


def judge_schema(labels: Sequence[Label]) -> dict[str, object]:
    """Return the JSON schema of a judgement."""
    # The reason comes first: a model that has to say why before it decides decides by it.
    fields = {"reason": {"type": "string"}, "supported": {"enum": ["yes", "no"]}, "label": {"enum": list(labels)}}
    return reply_schema(fields)


def parse_rewrite(text: str, *, retell_context: bool) -> Retold | Unparsed:
    """Return the rewrite in a reply."""
    found = _object(text)
    if isinstance(found, Unparsed):
        return found
    names = ("question", "long_answer", "context") if retell_context else ("question", "long_answer")
    texts = [_text(found, name) for name in names]
    for one in texts:
        if isinstance(one, Unparsed):
            return one
    question, long_answer, *rest = map(str, texts)
    return Retold(question=question, long_answer=long_answer, context=rest[0] if rest else None)


def parse_new(text: str, task: Task, *, with_options: bool) -> list[Invented | Unparsed] | Unparsed:
    """Return the new questions in a reply, each readable or not by itself."""
    found = _object(text)
    if isinstance(found, Unparsed):
        return found
    items = found.get("items")
    if not isinstance(items, list) or not items:
        return Unparsed(text=text, reason="no list 'items'")
    return [_invented(item, task, with_options=with_options) for item in items]


def parse_answer(text: str, task: Task) -> Label | Unparsed:
    """Return the label in a reply: the object's field, or, where no object was begun, the label that is the answer.

    In prose a label is the answer where it is the first word, followed by a mark, a new line or nothing; where it
    follows "answer:", "the answer is" or "label:"; or where it is all that follows a heading in any language. A label
    that is merely used, as in "There is no evidence", is none.
    """
    found = _object(text)
    if not isinstance(found, Unparsed):
        return _label(found, task)
    if found.reason == _BROKEN:
        return found
    answers = {label for start in _answer_places(text) for label in _labels_at(text, start, task)}
    if len(answers) == 1:
        return answers.pop()
    named = [label for label in task.labels if _names(text, label)]
    if answers or len(named) > 1:
        return Unparsed(text=text, reason="several labels")
    return Unparsed(text=text, reason="a label in passing, not as the answer" if named else "no label")


def readers_of(task: Task) -> tuple[Reader, ...]:
    """Return the ways to read what a student wrote; the paper's two know yes, no and maybe only."""
    papers = (Reader.FIRST_WORD, Reader.HUNDRED_WORDS) if sorted(task.labels) == ["maybe", "no", "yes"] else ()
    return (*papers, Reader.STRICT)


def read_written(text: str, task: Task, reader: Reader) -> Label | Unparsed:
    """Return the label in what a student wrote behind its prompt's opening words.

    The paper's readers look at the rest of that line, and take "know" for "no".
    """
    match reader:
        case Reader.FIRST_WORD:
            return _yes_or_no_in(_line_behind(text)[:1])
        case Reader.HUNDRED_WORDS:
            return _yes_or_no_in(_line_behind(text)[:100])
        case Reader.STRICT:
            return _parse_written(text, task)
        case _ as other:
            assert_never(other)


def _line_behind(text: str) -> list[str]:
    line, _, _ = text.partition("\n")
    return line.lower().split()


def _yes_or_no_in(words: Sequence[str]) -> Label:
    return next((label for word in words for label in ("yes", "no") if label in word), "maybe")


def _parse_written(text: str, task: Task) -> Label | Unparsed:
    # Students write the words that stand for a label; small ones repeat them to the end.
    labels = {task.verbalizers[label].strip(): label for label in task.labels}
    spoken = replace(task, labels=tuple(labels))
    found = parse_answer(text, spoken)
    if isinstance(found, Unparsed):
        echoed = [words for words in labels if regex.fullmatch(rf"(?i)[\W_]*+(?:{regex.escape(words)}[\W_]*+)++", text)]
        return labels[echoed[0]] if echoed else found
    return labels[found]


def _answer_places(text: str) -> list[int]:
    """Return where an answer's first letter could stand."""
    places = [0, *(lead.end() for lead in _LEAD.finditer(text))]
    heading = _HEADING.match(text)
    # Behind other headings than "answer" only when nothing else follows.
    if heading and regex.fullmatch(r"[^\r\n.,;:!?。，、；：！？]*+[\W_]*+", text, pos=heading.end()):
        places.append(heading.end())
    return [_end(_MARKS, text, place) for place in places]


def _labels_at(text: str, start: int, task: Task) -> set[Label]:
    """Return the label that begins here and ends with a mark, and those that are listed behind it."""
    found: set[Label] = set()
    for place in range(len(task.labels)):
        ended = _ENDED_IN_LIST if place else _ENDED
        same = [label for label in task.labels if _stands(text, start, label, ended)]
        same = [label for label in same if len(label) == max(map(len, same))]
        if not same:
            break
        found |= set([label for label in same if text.startswith(label, start)] or same)
        start = _end(_LISTED, text, start + len(same[0]))
    return found


def _end(pattern: regex.Pattern[str], text: str, start: int) -> int:
    match = pattern.match(text, start)
    assert match is not None, "the pattern matches nothing too"
    return int(match.end())


def _stands(text: str, start: int, label: Label, ended: str) -> bool:
    # "a" is an article: a letter is a label only as it is written.
    flags = 0 if _is_letter(label) else regex.IGNORECASE
    return regex.compile(regex.escape(label) + ended, flags).match(text, start) is not None


def _is_letter(label: Label) -> bool:
    return len(label) == 1 and label.isascii()


def parse_judgement(text: str, task: Task) -> Judgement | Unparsed:
    """Return the judgement in a reply; one without a clear yes or no, or without a label, is none."""
    found = _object(text)
    if isinstance(found, Unparsed):
        return found
    reason, supported, label = _text(found, "reason"), _text(found, "supported"), _label(found, task)
    for one in (reason, supported, label):
        if isinstance(one, Unparsed):
            return one
    if str(supported).casefold() not in ("yes", "no"):
        return Unparsed(text=str(supported), reason="'supported' is neither yes nor no")
    return Judgement(supported=str(supported).casefold() == "yes", label=str(label), reason=str(reason))


def _names(text: str, label: Label) -> bool:
    # A letter is named by words.
    return not _is_letter(label) and holds_word(text, label)


def _invented(item: object, task: Task, *, with_options: bool) -> Invented | Unparsed:
    if not isinstance(item, dict):
        return Unparsed(text=_shown(item), reason="an item that isn't an object")
    question, label, long_answer = _text(item, "question"), _label(item, task), _text(item, "long_answer")
    for one in (question, label, long_answer):
        if isinstance(one, Unparsed):
            return one
    options = _options(item, task) if with_options else ()
    if isinstance(options, Unparsed):
        return options
    return Invented(question=str(question), label=str(label), long_answer=str(long_answer), options=options)


def _options(item: Mapping[str, object], task: Task) -> tuple[str, ...] | Unparsed:
    found = item.get("options")
    if not isinstance(found, list) or len(found) != len(task.labels):
        return Unparsed(text=_shown(item), reason=f"no list 'options' of {len(task.labels)} texts")
    texts = [_text({"options": one}, "options") for one in found]
    for one in texts:
        if isinstance(one, Unparsed):
            return Unparsed(text=_shown(item), reason="an option is empty or no text")
    options = [str(one) for one in texts]
    # A name that was written all the same would be read twice.
    bare = [
        regex.sub(rf"\A{regex.escape(label)}[.):]\s+", "", one, flags=regex.IGNORECASE)
        for label, one in zip(task.labels, options, strict=True)
    ]
    if all(len(cut) < len(one) for cut, one in zip(bare, options, strict=True)):
        options = bare
    if len(set(map(str.casefold, options))) < len(options):
        return Unparsed(text=_shown(item), reason="two options are the same")
    return tuple(options)


def _label(found: Mapping[str, object], task: Task) -> Label | Unparsed:
    value = _text(found, "label")
    if isinstance(value, Unparsed) or value in task.labels:
        return value
    same = [label for label in task.labels if label.casefold() == value.casefold()]
    return same[0] if len(same) == 1 else Unparsed(text=value, reason=f"label not one of {', '.join(task.labels)}")


def _text(found: Mapping[str, object], name: str) -> str | Unparsed:
    value = found.get(name)
    # Half a character can be written in JSON, but in no file.
    if isinstance(value, str) and value.strip() and not _HALF_CHARACTER.search(value):
        return value.strip()
    reason = f"no text '{name}'" if value is None else f"'{name}' is empty or no text"
    return Unparsed(text=_shown(found), reason=reason)


def _shown(value: object) -> str:
    try:
        return str(_HALF_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", json.dumps(value, ensure_ascii=False)))
    except RecursionError:
        return "an object too deep to show"


def _object(text: str) -> dict[str, object] | Unparsed:
    """Return the first JSON object in a reply, whatever stands around it."""
    opening = _OPENING.search(text)
    if opening is None:
        return Unparsed(text=text, reason=_BROKEN if "{" in text else "no JSON object")
    try:
        # An object inside a broken one isn't tried: it isn't what was asked for.
        value, _ = json.JSONDecoder().raw_decode(text, opening.start())
    except (ValueError, RecursionError):
        return Unparsed(text=text, reason=_BROKEN)
    assert isinstance(value, dict)
    return value
