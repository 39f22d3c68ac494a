"""The exceptions that mean "the user can fix this": a command prints the message alone and exits with status 1."""


class UserError(Exception):
    """A mistake in what the user gave: an argument, a file or a configuration key, named in the message."""


class DamagedError(UserError):
    """A file that could be read, and does not hold what it should. Trouble with reading it is an `OSError`."""
