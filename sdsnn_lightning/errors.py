"""Errors meant for people: one line that names the file or key, and the cure."""


class UserError(Exception):
    """A mistake the user can mend. The command line prints its one-line message without a traceback."""


class DataError(UserError):
    """Data on disk is missing, incomplete or corrupt. The message names the file and the cure."""


class ConfigError(UserError):
    """A configuration cannot work. The message names the key and the cure."""


class NonFiniteLossError(UserError):
    """A loss term became NaN or infinite. The message names the term and the step."""
