"""Mutations of bytes and of JSON. All choices come from a Random: one seed gives one input on every machine."""

from __future__ import annotations

import json

LARGEST = 50_000  # bytes of an input: what grows beyond is cut
_NUMBERS = (0, 1, 2, 7, 8, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
_DECIMALS = (
    *(b"0", b"-1", b"1", b"-0", b"0.5", b"1e999", b"-1e-999", b"NaN", b"Infinity", b"-Infinity", b"2147483648"),
    *(b"9223372036854775808", b"1_000", "٣".encode(), b"0x1F", b"9" * 400, b"1e309", b"+5", b".5", b"5."),
)
# parts that any reader of texts may meet
TOKENS = (
    *(b"\0", b"\n", b"\r", b"\r\n", b"\t", b" ", b",", b";", b'"', b"'", b"\\", b"{", b"}", b"[", b"]", b":", b"#"),
    *(
        b"\xff\xfe",
        b"\xfe\xff",
        b"\xef\xbb\xbf",
        b"\x1f\x8b",
        b"\xed\xa0\x80",
        b"\xc0\x80",
        b"\xff",
        b"\xf4\x90\x80\x80",
    ),
    *(text.encode() for text in ("\x85", "\u2028", "\u200b", "\u202e", "\ufeff", "\ue0000\ue001", "é", "雪", "😀")),
    *(b"\x1b[31m", b"\x1b]8;;http://x\x07", b"../", b"~", b"$HOME", b"<script>", b"null", b"true", b"{}", b"[]", b'""'),
)
_LONG = (b"[" * 3000, b'{"a":' * 3000, b"a" * 5000, b"<p>" * 2000, b"\n" * 3000, b"," * 3000, b"(" * 3000, b"9" * 5000)
_LONG_EVERY = 40  # of so many inserted tokens one is long: most inputs should be read in a moment
_NAMES = ("", "id", "text", "_id", "title", "query", "score", "a\nb", "\0", "\ud800", "__class__", "Text", "9" * 30)


def mutated(random, data, others=(), tokens=()):
    """`data` with one to eight changes; `others` are inputs to splice in, `tokens` the words of the format."""
    for _ in range(1 << random.randrange(4)):
        data = random.choice(_CHANGES)(random, data, others, tokens)[:LARGEST]
    return data


def _span(random, data):
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.choice((1, 2, 4, 8, 32, 256)))


def _flip(random, data, others, tokens):
    if not data:
        return data
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def _byte(random, data, others, tokens):
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice((b"\0", b"\xff", b"\x7f", b"\x80", random.randbytes(1))) + data[at + 1 :]


def _insert_random(random, data, others, tokens):
    at = random.randrange(len(data) + 1)
    return data[:at] + random.randbytes(random.choice((1, 2, 8, 40))) + data[at:]


def _insert_token(random, data, others, tokens):
    token = random.choice((*tokens, *tokens, *TOKENS) if random.randrange(_LONG_EVERY) else _LONG)
    at = random.randrange(len(data) + 1)
    return data[:at] + token + data[at + random.choice((0, 0, len(token))) :]


def _delete(random, data, others, tokens):
    start, end = _span(random, data)
    return data[:start] + data[end:]


def _repeat(random, data, others, tokens):
    start, end = _span(random, data)
    return data[:end] + data[start:end] * random.choice((1, 2, 5, 20)) + data[end:]


def _move(random, data, others, tokens):
    start, end = _span(random, data)
    rest = data[:start] + data[end:]
    at = random.randrange(len(rest) + 1)
    return rest[:at] + data[start:end] + rest[at:]


def _truncate(random, data, others, tokens):
    return data[: random.randrange(len(data) + 1)]


def _splice(random, data, others, tokens):
    other = random.choice((*others, data))
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


def _length(random, data, others, tokens):
    """A number of 1 to 8 bytes in either order: lengths, counts and offsets of binary formats."""
    size, order = random.choice((1, 2, 4, 8)), random.choice(("little", "big"))
    at = random.randrange(max(1, len(data) - size + 1))
    value = int.from_bytes(data[at : at + size], order) + random.choice((-8, -1, 1, 8, 2**16))
    value = random.choice((value, random.choice(_NUMBERS)))
    return data[:at] + (value % 256**size).to_bytes(size, order) + data[at + size :]


def _decimal(random, data, others, tokens):
    """Another number in place of one that is written in digits."""
    places = [at for at, byte in enumerate(data[:4000]) if 48 <= byte < 58]
    if not places:
        return data
    start = end = random.choice(places)
    while end < len(data) and 48 <= data[end] < 58:
        end += 1
    return data[:start] + random.choice(_DECIMALS) + data[end:]


def _lines(random, data, others, tokens):
    """Lines that are repeated, dropped, moved or joined."""
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    at, other = random.randrange(len(lines)), random.randrange(len(lines))
    match random.randrange(4):
        case 0:
            lines.insert(other, lines[at])
        case 1:
            del lines[at]
        case 2:
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            lines[at] = lines[at].rstrip(b"\r\n")
    return b"".join(lines)


_CHANGES = (
    *(_flip, _byte, _insert_random, _insert_token, _insert_token, _delete, _repeat, _move, _truncate, _splice),
    *(_length, _length, _decimal, _lines),
)


# JSON


def any_value(random, depth=0):
    """A JSON value that a reader may not expect, or nothing that JSON has: NaN and lone surrogates."""
    values = (
        *(
            None,
            True,
            False,
            0,
            -1,
            1,
            0.5,
            -0.0,
            2**31,
            2**63,
            2**64,
            10**40,
            1e308,
            float("nan"),
            float("inf"),
            "",
            " ",
        ),
        *(
            "\0",
            "\ud800",
            "\u202e",
            "a\nb",
            "\x1b[31m",
            "\ue0000\ue001",
            "NaN",
            "1",
            "null",
            "../x",
            "/etc/passwd",
            "é" * 100,
        ),
        *([], {}, [[]], [None], [{}], [1, "a"], {"": ""}, {"text": None}, {"text": "a", "id": 1}, [[[1]]] * 2),
    )
    if depth < 3 and random.randrange(6) == 0:
        return [any_value(random, depth + 1) for _ in range(random.randrange(5))]
    return random.choice(values)


def changed_json(random, value):
    """`value` with one to four changes somewhere in it."""
    for _ in range(random.choice((1, 1, 2, 4))):
        value = _changed_at(random, value, depth=0)
    return value


def _changed_at(random, value, depth):
    inner = isinstance(value, (dict, list)) and value and depth < 12
    if inner and random.randrange(8):
        copy = value.copy()
        key = random.choice(list(copy)) if isinstance(copy, dict) else random.randrange(len(copy))
        copy[key] = _changed_at(random, copy[key], depth + 1)
        return copy
    return _changed_here(random, value)


def _changed_here(random, value):  # noqa: PLR0911
    choice = random.randrange(7)
    if isinstance(value, dict) and choice < 5:
        names = list(value)
        if choice == 0 and names:
            return {name: item for name, item in value.items() if name != (gone := random.choice(names)) or not gone}
        if choice == 1 and names:
            name, new = random.choice(names), random.choice((*_NAMES, *names))
            return {new if key == name else key: item for key, item in value.items()}
        return {**value, random.choice((*_NAMES, *names, *names)): any_value(random)}
    if isinstance(value, list) and choice < 5:
        items = list(value)
        if choice == 0 and items:
            del items[random.randrange(len(items))]
        elif choice == 1 and items:
            items += items * random.choice((1, 3, 10))
        elif choice == 2 and items:
            random.shuffle(items)
        else:
            items.insert(random.randrange(len(items) + 1), any_value(random))
        return items[:2000]
    if isinstance(value, str) and choice < 4:
        return mutated(random, value.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogateescape")[:6000]
    if isinstance(value, (int, float)) and not isinstance(value, bool) and choice < 4:
        return random.choice((value + 1, -value, value * 2, 0, 2**31, 2**63, 10**30, 0.5, float("nan"), str(value)))
    if choice == 5:
        for _ in range(random.choice((1, 1, 1, 2, 2, 2, 40, 900))):
            value = random.choice(([value], {"text": value}))
        return value
    return any_value(random)


def json_bytes(random, value):
    """`value` as JSON text, sometimes with forms that few writers give."""
    try:
        text = json.dumps(value, ensure_ascii=bool(random.randrange(2)), indent=random.choice((None, None, 1)))
    except (RecursionError, ValueError):
        text = "[" * 5000
    if random.randrange(12) == 0:  # a field twice
        text = text.replace('{"', '{"text": 5, "', 1)
    return text.encode("utf-8", random.choice(("surrogatepass", "backslashreplace")))
