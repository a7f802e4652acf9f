"""Text of files and users, written so that it does nothing but being read."""

from __future__ import annotations

import unicodedata

_MOST = 1000  # characters of a message: some values are whole files
# Control characters, those that turn the direction of text, half characters, private ones, lines.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def is_hidden(character: str) -> bool:
    """Tell whether a character would not be seen, but may act on a terminal or on its neighbours.

    Parameters
    ----------
    character : str
        One character.

    Returns
    -------
    bool
    """
    return unicodedata.category(character) in _UNSEEN


def printable(text: str) -> str:
    r"""Write a text so that a terminal shows it and does nothing else.

    Parameters
    ----------
    text : str
        Any, of a file for example.

    Returns
    -------
    str
        The same, with escapes (``\x1b``, ``\u202e``) for what would not be seen as a character:
        control characters and line ends, too.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(c) if is_hidden(c) else c for c in text)


def one_line(text: str) -> str:
    """Put a message into one line for a terminal.

    Parameters
    ----------
    text : str
        Any.

    Returns
    -------
    str
        `printable`, with single spaces for line ends; of more than 1000 characters the beginning
        and the end.
    """
    # cut first: a file of some gigabytes may stand in the message
    if len(text) > 2 * _MOST:
        text = f"{text[:_MOST]} {text[-_MOST:]}"
    line = printable(" ".join(text.split()))
    if len(line) > _MOST:
        half = (_MOST - 3) // 2
        line = f"{line[:half]} … {line[-half:]}"
    return line


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
