"""The one exception that means "the user can fix this": a command prints its message alone and exits with status 1."""


class UserError(Exception):
    """A mistake in what the user gave: an argument, a file or a configuration key, named in the message."""
