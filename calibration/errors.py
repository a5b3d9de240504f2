"""The one error this package raises about data. Commands translate it; nothing here prints."""

from __future__ import annotations


class CalibrationDataError(ValueError):
    """A data set is missing, empty, or holds a file that is not what it claims to be.

    The message is one line that names the file or option at fault and says what to do.
    """
