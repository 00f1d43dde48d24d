"""What a user can get wrong, as exceptions.

::

    HistoryADError
    |-- ConfigError    a hyperparameter: unknown name, wrong type, out of range
    |-- InputError     the data: missing, unreadable, of the wrong shape, too few
    `-- RunError       the run directory: altered, of another config, not writable

Every message says what was wrong, with which file or value, and what to do about it.
The command line turns each of them into one line and exit status 2.
"""


class HistoryADError(Exception):
    """Base of every error that a user can mend."""


class ConfigError(HistoryADError, ValueError):
    """A hyperparameter is unknown, of the wrong type or out of range."""


class InputError(HistoryADError, ValueError):
    """The data are missing, unreadable, of the wrong shape or too few."""


class RunError(HistoryADError, RuntimeError):
    """The run directory was altered, belongs to another config or cannot be written."""
