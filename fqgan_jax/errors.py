"""The one exception that speaks to the user instead of to the programmer."""


class UserError(Exception):
    """Bad input. The message says what is wrong, where, and what to do; commands exit with 2 and print only it."""
