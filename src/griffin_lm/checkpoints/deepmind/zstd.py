"""How much a zstd frame can hold, read from the headers of its blocks, without decoding it.

RFC 8878, section 3.1.1. A few bytes may claim gigabytes; what decodes them should be told before.
"""

_MAGIC = b"\x28\xb5\x2f\xfd"
_LARGEST_BLOCK = 128 * 1024  # bytes after decoding, whatever the block says
_RAW, _RLE, _COMPRESSED = range(3)


def decoded_bounds(data: memoryview) -> tuple[int, int] | None:
    """The least and the most bytes that exactly one whole frame decodes to; None if it is none.

    Where the frame says its size both are that size, unless its blocks cannot hold so much. The
    most is what a decoder may allocate.
    """
    if len(data) < 6 or bytes(data[:4]) != _MAGIC:
        return None
    descriptor = data[4]
    single, checked = bool(descriptor & 0x20), bool(descriptor & 0x04)
    if descriptor & 0x08 or descriptor & 0x03:  # reserved; a dictionary
        return None
    at = 5 + (not single)
    length = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    said = int.from_bytes(data[at : at + length], "little") + (256 if length == 2 else 0)
    at += length
    least = most = 0
    last = False
    while not last:
        if at + 3 > len(data):
            return None
        header = int.from_bytes(data[at : at + 3], "little")
        last, kind, size = bool(header & 1), (header >> 1) & 3, header >> 3
        if kind > _COMPRESSED or size > _LARGEST_BLOCK:
            return None
        least += size if kind != _COMPRESSED else 0
        most += size if kind != _COMPRESSED else _LARGEST_BLOCK
        at += 3 + (1 if kind == _RLE else size)
    if at + (4 if checked else 0) != len(data):
        return None
    if not length:
        return least, most
    return (said, most) if least <= said <= most else None
