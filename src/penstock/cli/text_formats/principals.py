"""Principals and operations as people write them."""

from __future__ import annotations

from penstock.base.acls import Operation
from penstock.base.errors import InvalidRequest


def parse_principal(text: str) -> str:
    """Read a principal: `alice`, `User:alice`, `*` for everybody."""
    text = text.strip()
    principal = text if text.startswith("User:") else f"User:{text}"
    if principal == "User:":
        raise InvalidRequest("a principal needs a name, such as alice or User:alice")
    return principal


def parse_operation(text: str) -> Operation:
    """Read an operation in any spelling: `describe-configs`, `DescribeConfigs`, `DESCRIBE_CONFIGS`."""
    plain = "".join(letter for letter in text.lower() if letter.isalpha())
    for operation in Operation:
        if operation.name.replace("_", "").lower() == plain and operation > Operation.ANY:
            return operation
    names = ", ".join(shown(operation) for operation in Operation if operation > Operation.ANY)
    raise InvalidRequest(f"{text!r} is not an operation; use one of {names}")


def shown(code: Operation) -> str:
    """An operation as it is written on the command line."""
    return code.name.lower().replace("_", "-")
