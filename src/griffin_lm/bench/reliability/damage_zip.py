"""Damage to a PyTorch file: the entries of the zip, and the opcodes of the pickle inside.

The zip is written again with right checksums, so that what reads the entries is reached; damage to
the zip itself is `damage_bytes`, which hits its directory at the end.
"""

import io
import pickletools
import struct
import warnings
import zipfile
import zlib
from functools import cache
from random import Random

from .damage import damage_bytes, integer

Entry = tuple[str, bytes, bool]  # name, content, deflated

_NAMES = ("", "data.pkl", "archive/data.pkl", "../../x", "archive/version", "archive/byteorder",
          "archive/data/0", "archive/data/99", "a" * 300, "archive/.data/serialization_id",
          "archive/constants.pkl", "archive/code/x.py")  # fmt: skip
_GLOBALS = (b"os system", b"builtins eval", b"builtins bytearray", b"builtins set",
            b"collections OrderedDict", b"collections Counter", b"torch FloatStorage",
            b"torch BFloat16Storage", b"torch LongStorage", b"torch QInt8Storage", b"torch Size",
            b"torch float32", b"torch device", b"torch._utils _rebuild_tensor_v2",
            b"torch._utils _rebuild_tensor", b"torch._utils _rebuild_parameter",
            b"torch._utils _rebuild_sparse_tensor", b"torch._utils _rebuild_meta_tensor_no_storage",
            b"torch._utils _rebuild_qtensor", b"torch._utils _rebuild_nested_tensor",
            b"torch.nn.parameter Parameter", b"torch._tensor _rebuild_from_type_v2",
            b"torch.storage UntypedStorage", b"_codecs encode",
            b"numpy._core.multiarray _reconstruct")  # fmt: skip
_TEXTS = (b"", b"cpu", b"meta", b"cuda:0", b"0", b"1", b"999", b"../0", b"storage", b"a" * 500,
          b"\xff")  # fmt: skip
_OBJECTS = (  # each leaves one object more on the stack
    b"N", b"}", b"]", b")", b"\x88", b"K\x07", b"J\xff\xff\xff\x7f", b"G\x7f\xf8\0\0\0\0\0\0",
    b"X\x01\0\0\0a", b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R",
    b"cbuiltins\nbytearray\n\x8a\x05\0\0\0\0\x10\x85R", b"ccollections\nOrderedDict\n)R",
    b"ctorch\nSize\n(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft\x85R", b"ctorch\nfloat32\n",
    b"cos\nsystem\nX\x04\0\0\0true\x85R", b"](" + b"K\x01" * 300 + b"e", b"(" * 200 + b"t" * 200,
)  # fmt: skip
_BOMB_SIZE = 96 << 20  # bytes, once inflated


def damage_zip(random: Random, data: bytes) -> bytes:
    """One or two changed entries; the bytes as they are where they are no zip."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            rows: list[Entry] = [(i.filename, archive.read(i), False) for i in archive.infolist()]
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, zlib.error):
        return data
    for _ in range(random.choice((1, 1, 2))):
        _change(random, rows)
    if random.random() < 0.01:
        return _with_bomb(random, rows)
    return _write(rows)


def damage_pickle(random: Random, data: bytes) -> bytes:
    """A zip whose pickle has one to four changed opcodes."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            rows: list[Entry] = [(i.filename, archive.read(i), False) for i in archive.infolist()]
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, zlib.error):
        return data
    changed = [
        (name, change_opcodes(random, content) if name.endswith(".pkl") else content, False)
        for name, content, _ in rows
    ]
    return _write(changed)


def change_opcodes(random: Random, pickle: bytes) -> bytes:
    """A pickle with changed numbers, texts and globals, or opcodes lost, added or doubled."""
    try:
        places = [place for _, _, place in pickletools.genops(pickle)]
    except (ValueError, UnicodeDecodeError):
        return damage_bytes(random, pickle)
    ends = [*places[1:], len(pickle)]
    codes = [pickle[begin:end] for begin, end in zip(places, ends, strict=True)]
    for _ in range(random.choice((1, 1, 2, 4))):
        if not codes:
            break
        at = random.randrange(len(codes))
        kind = random.randrange(8)
        if kind < 3:
            codes[at] = _other(random, codes[at])
        elif kind == 3:
            del codes[at]
        elif kind == 4:
            codes[at:at] = [random.choice(codes)]
        elif kind == 5:
            codes[at:at] = [random.choice(_OBJECTS)]
        elif kind == 6:
            codes[at] = random.choice((*_OBJECTS, *(_global(name) for name in _GLOBALS)))
        else:
            other = random.randrange(len(codes))
            codes[at], codes[other] = codes[other], codes[at]
    return b"".join(codes)


def _global(name: bytes) -> bytes:
    module, attribute = name.split()
    return b"c" + module + b"\n" + attribute + b"\n"


def _other(random: Random, code: bytes) -> bytes:
    """The same opcode with another argument, where it has one."""
    kind = code[:1]
    if kind in (b"K", b"M", b"J", b"\x8a"):  # integers
        value = integer(random) * random.choice((1, 1, -1))
        if -(2**31) <= value < 2**31 and random.random() < 0.7:
            return b"J" + struct.pack("<i", value)
        raw = value.to_bytes(9, "little", signed=True)
        return b"\x8a\x09" + raw
    if kind == b"X":  # text: storage keys, locations, names
        text = random.choice((*_TEXTS, code[5:] + b"x", code[5:-1]))
        return b"X" + struct.pack("<I", len(text)) + text
    if kind == b"c":
        return _global(random.choice(_GLOBALS))
    if kind in (b"q", b"r", b"h", b"j"):  # the memo
        return random.choice((b"q", b"h")) + bytes((random.randrange(256),))
    return random.choice((b"}", b"]", b")", b"(", b"t", b"R", b"Q", b"b", b"u", b"0", b".", b"s"))


def _change(random: Random, rows: list[Entry]) -> None:
    if not rows:
        return
    at = random.randrange(len(rows))
    name, content, deflated = rows[at]
    kind = random.randrange(9)
    if kind < 2:
        rows[at] = name, damage_bytes(random, content), deflated
    elif kind == 2:
        del rows[at]
    elif kind == 3:
        rows[at:at] = [random.choice(rows)]
    elif kind == 4:
        rows[at] = random.choice((*_NAMES, name + "x", rows[0][0])), content, deflated
    elif kind == 5:
        rows[at] = name, content, True
    elif kind == 6:
        longer = content * random.choice((2, 10)) + b"x"
        rows[at] = name, random.choice((b"", content[: len(content) // 2], longer)), deflated
    elif kind == 7:
        other = random.randrange(len(rows))
        rows[at], rows[other] = (name, rows[other][1], False), (rows[other][0], content, False)
    else:
        rows.append((random.choice(_NAMES), random.choice((b"", b"big", b"1\n", content)), False))


def _write(rows: list[Entry]) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")  # names that stand twice
        for name, content, deflated in rows:
            kind = zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED
            info = zipfile.ZipInfo(name)  # always of 1980: the same bytes each time
            archive.writestr(info, content, compress_type=kind)
    return out.getvalue()


@cache
def _bomb() -> tuple[bytes, int]:
    """Zeros, deflated, and their CRC-32."""
    zeros = bytes(_BOMB_SIZE)
    return zlib.compress(zeros, 9)[2:-4], zlib.crc32(zeros)


def _with_bomb(random: Random, rows: list[Entry]) -> bytes:
    """One entry is 96 MiB once inflated; local header and directory say so, or say less."""
    at = random.randrange(max(len(rows), 1))
    name = rows[at][0] if rows else "archive/data.pkl"
    plain = _write([row for i, row in enumerate(rows) if i != at])
    size = random.choice((_BOMB_SIZE, 10, 2**32 - 1))
    bomb, checksum = _bomb()
    facts = struct.pack("<HHHHHIII", 20, 0, 8, 0, 33, checksum, len(bomb), size)
    raw = name.encode()
    local = b"PK\3\4" + facts + struct.pack("<HH", len(raw), 0) + raw + bomb
    end = plain.rindex(b"PK\5\6")
    count, _, length, start = struct.unpack("<HHII", plain[end + 8 : end + 20])
    directory = plain[start : start + length] + b"PK\1\2" + struct.pack("<H", 20) + facts
    directory += struct.pack("<HHHHHII", len(raw), 0, 0, 0, 0, 0, start) + raw
    tail = struct.pack("<HHHHIIH", 0, 0, count + 1, count + 1, len(directory),
                       start + len(local), 0)  # fmt: skip
    return plain[:start] + local + directory + b"PK\5\6" + tail
