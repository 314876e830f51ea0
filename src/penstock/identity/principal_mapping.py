"""Kafka's `ssl.principal.mapping.rules`: from the distinguished name of a certificate to a principal. Pure.

A list of `DEFAULT` and `RULE:pattern/replacement/[LU]`, of which the first that matches the whole name applies; `$1`
stands for a group of the pattern, L and U change the case of the result. `DEFAULT` is the name unchanged.

Kafka then replaces every match that it *finds* in the name. That is the whole name unless the pattern can match less;
then more than one match is replaced, or a rest remains. This is reproduced, so that ACLs written for Kafka's principals
find the same ones here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from penstock.base.dataclasses import dataclass
from penstock.base.errors import InvalidRequest
from penstock.identity.failures import Denied

_RULE = (
    r"\s*(?:(?P<default>DEFAULT)|RULE:(?P<pattern>(?:\\.|[^\\/])*)/(?P<replacement>(?:\\.|[^\\/])*)/(?P<case>[LU]?))"
    r"\s*(?:,\s*|$)"
)
_REPLACEMENT = r"(?s)\\(?P<escaped>.)|\$(?P<group>\d+)|(?P<text>[^\\$]+|\$)"
MAX_NAME_CHARS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule; without pattern it is `DEFAULT`."""

    pattern: re.Pattern[str] | None = None
    replacement: str = ""
    case: str = ""

    @property
    def takes_of_name(self) -> bool:
        """Whether the result contains part of the name."""
        return any(piece["group"] is not None for piece in re.finditer(_REPLACEMENT, self.replacement))

    def apply(self, name: str) -> str | None:
        """The result for a whole name; None if it does not match."""
        if self.pattern is None:
            return name
        match = self.pattern.fullmatch(name)
        return None if match is None else self._cased(_expanded(self.replacement, match))

    def principal_of(self, name: str) -> str | None:
        """Kafka's principal for a name; None if it does not match."""
        if self.pattern is None:
            return name
        if self.pattern.fullmatch(name) is None:
            return None
        return self._cased(self.pattern.sub(lambda match: _expanded(self.replacement, match), name))

    def _cased(self, result: str) -> str:
        return result.lower() if self.case == "L" else result.upper() if self.case == "U" else result


def parse_rules(text: str, what: str = "principal mapping rules") -> tuple[Rule, ...]:
    """Parse a list of rules. Raises `InvalidRequest`."""
    rules, position = [], 0
    text = text.strip()
    while position < len(text):
        match = re.compile(_RULE).match(text, position)
        if match is None:
            raise InvalidRequest(f"{what}: cannot read {text[position:]!r}")
        if match["default"]:
            rules.append(Rule())
        else:
            try:
                pattern = re.compile(match["pattern"])
            except re.error as error:
                raise InvalidRequest(f"{what}: {match['pattern']!r}: {error}") from error
            rules.append(Rule(pattern=pattern, replacement=match["replacement"], case=match["case"]))
        position = match.end()
    return tuple(rules) or (Rule(),)


def mapped(rules: Sequence[Rule], name: str) -> str:
    """The principal's name. Raises `Denied` if no rule matches, where Kafka refuses the connection as well."""
    if len(name) > MAX_NAME_CHARS:
        raise Denied("the distinguished name is too long")
    for rule in rules:
        found = rule.principal_of(name)
        if found is not None:
            return found
    raise Denied(f"no principal mapping rule applies to {name!r}")


def _expanded(replacement: str, match: re.Match[str]) -> str:
    """Java's replacement syntax. A group that the pattern does not have is kept literally, as in Kafka."""
    parts = []
    for piece in re.finditer(_REPLACEMENT, replacement):
        if piece["escaped"] is not None:
            parts.append(piece["escaped"])
        elif piece["group"] is None:
            parts.append(piece["text"])
        else:
            parts.append(_group(piece["group"], match))
    return "".join(parts)


def _group(digits: str, match: re.Match[str]) -> str:
    groups = match.re.groups
    # `$12` is group 1 followed by a 2 where there are fewer than twelve groups.
    for length in range(len(digits), 0, -1):
        if int(digits[:length]) <= groups:
            return (match[int(digits[:length])] or "") + digits[length:]
    return f"${digits}"
