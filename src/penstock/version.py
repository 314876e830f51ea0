"""The release of this program. Data written by a newer release is refused by an older one."""

__version__ = "0.1.0"
