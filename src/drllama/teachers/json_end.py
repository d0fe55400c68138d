"""Where the first JSON object of a growing text ends, so that a teacher can stop speaking there."""

import re

# An object begins with a key or is empty; a brace in prose, in LaTeX or in a set begins with something else.
_START = re.compile(r'\{\s*["}]')
# A whole string, a string that is still open, or a brace outside of strings.
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*+"|"|[{}]', re.DOTALL)


def object_end(text: str) -> int | None:
    r"""Return the place behind the brace that closes the first JSON object of a text; None while it is open.

    Braces inside strings don't count. What comes later never changes the answer, so a growing text may be asked again
    and again. It only says where the object ends, not whether it can be read.

    >>> object_end('Sure: {"a": "}"} and more')
    16
    >>> object_end('{"a": "}')
    """
    start = _START.search(text)
    if start is None:
        return None
    depth = 0
    for piece in _PIECE.finditer(text, start.start()):
        match piece.group():
            case "{":
                depth += 1
            case "}":
                depth -= 1
                if depth == 0:
                    return piece.end()
            case '"':
                return None
    return None
