"""Errors of this package.

ConnectorError
├── UnknownFormat   no importer, or more than one, takes the file
├── BadMapping      the columns or options given do not fit the file
├── BadPattern      a custom pattern to redact is unsafe or not a regular expression
└── TookTooLong     the work on one record reached its limit

A bad record inside a file raises nothing: it becomes a ``Rejected`` with its line and reason.
"""


class ConnectorError(Exception):
    """Anything this package raises on purpose."""


class UnknownFormat(ConnectorError):
    """No importer, or more than one, takes the file; the message lists those that exist."""


class BadMapping(ConnectorError):
    """The columns, roles or encoding given do not fit the file; the message says what to pass."""


class BadPattern(ConnectorError):
    """A custom pattern is not a regular expression, or could take very long on some text."""


class TookTooLong(ConnectorError):
    """The work on one record was stopped; an import rejects the record."""
