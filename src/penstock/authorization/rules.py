"""What ACLs decide: Kafka's rules, as pure functions over an index of one virtual cluster's ACLs.

All ACLs whose pattern covers the resource are looked at: the literal name, `*`, and every prefix of the name. Of those
that name the principal (or everyone) and the host (or all),

- one that denies the operation, or ALL of them, decides: no;
- else one that allows it, or ALL, or an operation that implies it, decides: yes. READ, WRITE, DELETE and ALTER imply
  DESCRIBE; ALTER_CONFIGS implies DESCRIBE_CONFIGS. Denying READ does not deny DESCRIBE;
- else no, unless no ACL at all covers the resource: then it is the default that decides.

The index finds what covers a resource by name: one look-up for the literal, one for `*`, one for each length of which
there is a prefix. Below a pattern, ACLs go by principal, so that many principals on one resource cost nothing, and
where a principal has more than a few, by host and operation: what it takes to decide does not grow with what somebody
has made of ACLs.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv6Address, ip_address
from itertools import chain

from penstock.base.acls import ANYONE, WILDCARD, Acl, AclFilter, Operation, PatternType, Permission, ResourceType
from penstock.base.dataclasses import dataclass
from penstock.base.portions import breathe, in_order

_IMPLIED_BY = {
    Operation.DESCRIBE: frozenset(
        (Operation.DESCRIBE, Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER, Operation.ALL)
    ),
    Operation.DESCRIBE_CONFIGS: frozenset((Operation.DESCRIBE_CONFIGS, Operation.ALTER_CONFIGS, Operation.ALL)),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided, and the ACL that did; without one it was a super user or the default."""

    allowed: bool
    acl: Acl | None = None
    reason: str = ""


SUPER_USER = Verdict(True, reason="SuperUser")
DEFAULT_ALLOW, DEFAULT_DENY = Verdict(True, reason="DefaultAllow"), Verdict(False, reason="DefaultDeny")

_SHORT_IPV4 = r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(?:\.(?!$)|$)){4}"
"""An address as it is compared: telling that takes a tenth of reading it."""
FEW = 8
"""So many ACLs of a principal on one pattern are looked at one by one."""


def _kind(operation: Operation, permission: Permission) -> int:
    """The kind of ACLs that say this of an operation, as a bit."""
    return 1 << 2 * operation + (permission is Permission.ALLOW)


def _wanted(operation: Operation, allows: Iterable[Operation]) -> int:
    """The kinds of ACLs that decide about an operation, which these allow."""
    wanted = _kind(operation, Permission.DENY) | _kind(Operation.ALL, Permission.DENY)
    for one in allows:
        wanted |= _kind(one, Permission.ALLOW)
    return wanted


_WANTED = {one: _wanted(one, _IMPLIED_BY.get(one) or (one, Operation.ALL)) for one in Operation}
"""The kinds that decide about each operation."""
_Rule = tuple[str, int, Acl]
"""An ACL, with the host it is for as hosts are compared, and its kind."""
_Resource = tuple[ResourceType, str]


def _rule(acl: Acl) -> _Rule:
    host = acl.host if acl.host == WILDCARD else canonical_host(acl.host)
    return host, _kind(acl.operation, acl.permission), acl


class _Many:
    """More than a few ACLs of one principal on one pattern. Of those that only differ in how they spell a host one is
    looked at."""

    __slots__ = ("_alike", "_kinds", "_rules")

    def __init__(self, rules: Iterable[_Rule]) -> None:
        self._rules: dict[Acl, _Rule] = {}
        self._kinds: dict[str, int] = {}
        """Which there are, by host."""
        self._alike: dict[tuple[str, int], dict[Acl, None]] = {}
        """By host and kind."""
        for rule in rules:
            self.append(rule)

    def __len__(self) -> int:
        return len(self._rules)

    def __iter__(self) -> Iterator[_Rule]:
        return iter(self._rules.values())

    def append(self, rule: _Rule) -> None:
        host, kind, acl = rule
        self._rules[acl] = rule
        self._kinds[host] = self._kinds.get(host, 0) | kind
        self._alike.setdefault((host, kind), {})[acl] = None

    def remove(self, rule: _Rule) -> None:
        host, kind, acl = rule
        del self._rules[acl]
        alike = self._alike[host, kind]
        del alike[acl]
        if alike:
            return
        del self._alike[host, kind]
        self._kinds[host] &= ~kind
        if not self._kinds[host]:
            del self._kinds[host]

    def of(self, host: str, wanted: int) -> Iterator[Acl]:
        """Those that count for a host, of these kinds."""
        for one in (host, WILDCARD):
            found = self._kinds.get(one, 0) & wanted
            while found:
                kind = found & -found
                found ^= kind
                yield next(iter(self._alike[one, kind]))


class _ByPrincipal(dict[str, list[_Rule] | _Many]):
    """The ACLs on one pattern."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        """How many there are of all principals."""


_NOTHING = _ByPrincipal()


class AclIndex:
    """The ACLs of one virtual cluster."""

    __slots__ = ("_acls", "_lengths", "_literal", "_prefixed")

    def __init__(self, acls: Iterable[Acl] = ()) -> None:
        self._acls: dict[Acl, None] = {}
        self._literal: dict[_Resource, _ByPrincipal] = {}
        self._prefixed: dict[_Resource, _ByPrincipal] = {}
        self._lengths: dict[ResourceType, dict[int, int]] = {}
        """By type: of how many patterns the prefix has that length."""
        for acl in acls:
            self.add(acl)

    def __len__(self) -> int:
        return len(self._acls)

    def __contains__(self, acl: Acl) -> bool:
        return acl in self._acls

    def __iter__(self) -> Iterator[Acl]:
        return iter(self._acls)

    def add(self, acl: Acl) -> None:
        """Let an ACL count. Again for one that does: nothing happens."""
        if acl in self._acls:
            return
        self._acls[acl] = None
        patterns, resource = self._patterns(acl), (acl.resource_type, acl.resource_name)
        if acl.pattern_type is PatternType.PREFIXED and resource not in patterns:
            lengths, length = self._lengths.setdefault(acl.resource_type, {}), len(acl.resource_name)
            lengths[length] = lengths.get(length, 0) + 1
        by_principal = patterns.get(resource)
        if by_principal is None:
            by_principal = patterns[resource] = _ByPrincipal()
        by_principal.count += 1
        rules = by_principal.setdefault(acl.principal, [])
        rules.append(_rule(acl))
        if isinstance(rules, list) and len(rules) > FEW:
            by_principal[acl.principal] = _Many(rules)

    def remove(self, acl: Acl) -> None:
        """Let an ACL not count any more; nothing happens where it did not."""
        if acl not in self._acls:
            return
        del self._acls[acl]
        patterns, resource = self._patterns(acl), (acl.resource_type, acl.resource_name)
        by_principal = patterns[resource]
        by_principal.count -= 1
        by_principal[acl.principal].remove(_rule(acl))
        if by_principal[acl.principal]:
            return
        del by_principal[acl.principal]
        if by_principal:
            return
        del patterns[resource]
        if acl.pattern_type is PatternType.PREFIXED:
            lengths, length = self._lengths[acl.resource_type], len(acl.resource_name)
            lengths[length] -= 1
            if not lengths[length]:
                del lengths[length]

    def matching(self, asked: AclFilter) -> list[Acl]:
        """The ACLs that a filter picks."""
        by_principal = self._named(asked)
        if by_principal is None:
            return [acl for acl in self._acls if asked.matches(acl)]
        return [acl for rules in by_principal.values() for _, _, acl in rules if asked.matches(acl)]

    def cost(self, asked: AclFilter) -> int:
        """How many ACLs are compared with a filter for that."""
        by_principal = self._named(asked)
        return 1 + (len(self._acls) if by_principal is None else by_principal.count)

    def _named(self, asked: AclFilter) -> _ByPrincipal | None:
        """The only pattern that a filter can pick, if it says which."""
        if asked.resource_type is ResourceType.ANY or asked.resource_name is None:
            return None
        resource = asked.resource_type, asked.resource_name
        match asked.pattern_type:
            case PatternType.LITERAL:
                return self._literal.get(resource, _NOTHING)
            case PatternType.PREFIXED:
                return self._prefixed.get(resource, _NOTHING)
            case _:
                return None

    def covering(self, resource_type: ResourceType, name: str) -> Iterator[_ByPrincipal]:
        """The patterns that cover a resource."""
        literal, prefixed = self._literal, self._prefixed
        if (found := literal.get((resource_type, name))) is not None:
            yield found
        if name != WILDCARD and (found := literal.get((resource_type, WILDCARD))) is not None:
            yield found
        for length in self._lengths.get(resource_type, ()):
            if length <= len(name) and (found := prefixed.get((resource_type, name[:length]))) is not None:
                yield found

    def patterns(self, resource_type: ResourceType) -> list[_ByPrincipal]:
        """All patterns of a kind of resource."""
        both = chain(self._literal.items(), self._prefixed.items())
        return [by_principal for (kind, _), by_principal in both if kind is resource_type]

    def _patterns(self, acl: Acl) -> dict[_Resource, _ByPrincipal]:
        return self._prefixed if acl.pattern_type is PatternType.PREFIXED else self._literal


def decide(
    index: AclIndex, principal: str, host: str, operation: Operation, resource_type: ResourceType, name: str,
    *, default: Verdict = DEFAULT_DENY,
) -> Verdict:  # fmt: skip
    """Whether a principal, coming from a host, may do this to the resource of that name."""
    wanted = _WANTED[operation]
    allowed: Acl | None = None
    covered = False
    for by_principal in index.covering(resource_type, name):
        covered = True
        for acl in _of(by_principal, principal, host, wanted):
            if acl.permission is Permission.DENY:
                return Verdict(False, acl)
            allowed = allowed or acl
    if allowed is not None:
        return Verdict(True, allowed)
    return DEFAULT_DENY if covered else default


async def decide_for_any(
    index: AclIndex, principal: str, host: str, operation: Operation, resource_type: ResourceType,
    *, default: Verdict = DEFAULT_DENY,
) -> Verdict:  # fmt: skip
    """Whether the principal may do this to at least one resource of a kind, whether it exists or not.

    Implied operations do not count. An allowed pattern is of no use where a denied one covers all of it.
    """
    verdict = decide(index, principal, host, operation, resource_type, "hardcode", default=default)
    if verdict.allowed:
        return verdict
    wanted = _wanted(operation, (operation, Operation.ALL))
    allowed: list[Acl] = []
    denied: dict[PatternType, dict[str, Acl]] = {PatternType.LITERAL: {}, PatternType.PREFIXED: {}}
    for number, by_principal in enumerate(index.patterns(resource_type)):
        await breathe(number)
        for acl in _of(by_principal, principal, host, wanted):
            if acl.permission is Permission.ALLOW:
                allowed.append(acl)
            else:
                denied[acl.pattern_type][acl.resource_name] = acl
    literally = denied[PatternType.LITERAL]
    if (everything := literally.get(WILDCARD)) is not None:
        return Verdict(False, everything)
    prefixes = await _shortest(denied[PatternType.PREFIXED])
    for number, acl in enumerate(allowed):
        await breathe(number)
        name, is_literal = acl.resource_name, acl.pattern_type is PatternType.LITERAL
        if (is_literal and name == WILDCARD) or not ((is_literal and name in literally) or _begins(name, prefixes)):
            return Verdict(True, acl)
    return DEFAULT_DENY


async def _shortest(prefixes: Iterable[str]) -> list[str]:
    """These prefixes in order, without those of which another one is a prefix."""
    shortest = list[str]()
    for number, prefix in enumerate(await in_order(list(prefixes), str)):
        await breathe(number)
        if not shortest or not prefix.startswith(shortest[-1]):
            shortest.append(prefix)
    return shortest


def _begins(name: str, shortest: Sequence[str]) -> bool:
    """Whether a name begins with one of these. Only the last one that does not come behind it can be that: whatever is
    between a prefix and a name begins with the prefix, too."""
    at = bisect_right(shortest, name)
    return at > 0 and name.startswith(shortest[at - 1])


def _of(by_principal: _ByPrincipal, principal: str, host: str, wanted: int) -> Iterator[Acl]:
    for who in (principal, ANYONE):
        rules = by_principal.get(who, ())
        if isinstance(rules, _Many):
            yield from rules.of(host, wanted)
        else:
            for known, kind, acl in rules:
                if kind & wanted and known in (WILDCARD, host):
                    yield acl
        if principal == ANYONE:
            return


def canonical_host(text: str) -> str:
    """An address in the one way it is compared in: short, and IPv4 where it is an IPv4 address in an IPv6 one."""
    if re.fullmatch(_SHORT_IPV4, text):
        return text
    try:
        address = ip_address(text)
    except ValueError:
        return text
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)
