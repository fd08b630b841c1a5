"""Keys of our own form, made here and not by keyloader: for imports, and as an independent check of the form.

Used by tests. Not for anything but tests: the random numbers can be repeated from a seed.
"""

import zlib

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def key_check(text: str) -> str:
    value, digits = zlib.crc32(text.encode()), ""
    for _ in range(6):
        value, digit = divmod(value, 62)
        digits = ALPHABET[digit] + digits
    return digits


def make_key(rng, env="live", prefix="ak") -> str:
    head = f"{prefix}_{env}_" + "".join(rng.choices(ALPHABET, k=32))
    return head + key_check(head)
