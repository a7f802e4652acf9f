"""The errors that a user can cause, each with the exit status it leads to."""

from __future__ import annotations


class StemdispError(Exception):
    """Base of all errors that are meant for the user: one line, what, where and what to do."""

    exit_status = 1


class ConfigError(StemdispError):
    """The command line or the configuration is wrong."""

    exit_status = 2


class DataError(StemdispError):
    """The data cannot be read, or they do not support the analysis."""

    exit_status = 3
