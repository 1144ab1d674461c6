"""Errors of this package.

ConnectorError
├── UnknownFormat   no importer, or more than one, takes the file
├── BadMapping      the columns or options given do not fit the file
├── BadPattern      a number pattern to redact is unsafe or not a pattern
└── TookTooLong     work on one record was stopped by whoever bounds it

A bad record inside a file is no error: it is a ``Rejected`` with its line and reason.
"""


class ConnectorError(Exception):
    """Anything this package raises on purpose."""


class UnknownFormat(ConnectorError):
    """No importer, or more than one, takes the file; the message lists those that exist."""


class BadMapping(ConnectorError):
    """The columns, speakers or encoding given do not fit the file; says what to pass."""


class BadPattern(ConnectorError):
    """A number pattern to redact is not a pattern, or could take very long on some text."""


class TookTooLong(ConnectorError):
    """Work on one record was stopped; an import leaves the record out."""
