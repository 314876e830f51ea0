"""Kafka's rules for evaluating ACLs (KIP-11, KIP-290), over an index of one virtual cluster's ACLs. Pure.

An ACL applies if its pattern covers the resource (the literal name, `*`, or a prefix of the name), and if it is for the
principal (or `User:*`) and the host (or `*`). Of the ACLs that apply,

- one that denies the operation, or ALL, decides: denied;
- else one that allows it, or ALL, or an operation that implies it, decides: allowed. READ, WRITE, DELETE and ALTER
  imply DESCRIBE; ALTER_CONFIGS implies DESCRIBE_CONFIGS. Denying READ does not deny DESCRIBE;
- else denied, unless no ACL of any principal covers the resource: then the default decides
  (`allow.everyone.if.no.acl.found`).

The index finds the patterns that cover a resource by one look-up for the literal name, one for `*`, and one for each
length of a prefix. The ACLs of a pattern are grouped by principal, and those of a principal with more than a few also
by host and operation, so that the time of a decision does not depend on how many ACLs a tenant has created.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv6Address, ip_address
from itertools import chain

from penstock.base.acls import ANYONE, WILDCARD, Acl, AclFilter, Operation, PatternType, Permission, ResourceType
from penstock.base.cooperative import sort_items, yield_if_due
from penstock.base.dataclasses import dataclass

_IMPLIED_BY = {
    Operation.DESCRIBE: frozenset(
        (Operation.DESCRIBE, Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER, Operation.ALL)
    ),
    Operation.DESCRIBE_CONFIGS: frozenset((Operation.DESCRIBE_CONFIGS, Operation.ALTER_CONFIGS, Operation.ALL)),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision, and the ACL that decided; None if it was a super user or the default."""

    allowed: bool
    acl: Acl | None = None
    reason: str = ""


SUPER_USER = Verdict(True, reason="SuperUser")
DEFAULT_ALLOW, DEFAULT_DENY = Verdict(True, reason="DefaultAllow"), Verdict(False, reason="DefaultDeny")

_SHORT_IPV4 = r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(?:\.(?!$)|$)){4}"
"""An IPv4 address in canonical form: matching it takes a tenth of the time of parsing an address."""
MAX_LINEAR = 8
"""Up to so many ACLs of a principal on one pattern are searched linearly."""


def _bit(operation: Operation, permission: Permission) -> int:
    """Operation and permission of an ACL, as one bit of a mask."""
    return 1 << 2 * operation + (permission is Permission.ALLOW)


def _mask_of(operation: Operation, allows: Iterable[Operation]) -> int:
    """The mask of ACLs that decide about an operation: those that deny it, and those that allow one of `allows`."""
    mask = _bit(operation, Permission.DENY) | _bit(Operation.ALL, Permission.DENY)
    for one in allows:
        mask |= _bit(one, Permission.ALLOW)
    return mask


_MASKS = {one: _mask_of(one, _IMPLIED_BY.get(one) or (one, Operation.ALL)) for one in Operation}
"""The mask for each operation."""
_Rule = tuple[str, int, Acl]
"""An ACL with its host in canonical form, and its bit."""
_Resource = tuple[ResourceType, str]


def _rule(acl: Acl) -> _Rule:
    host = acl.host if acl.host == WILDCARD else canonical_host(acl.host)
    return host, _bit(acl.operation, acl.permission), acl


class _IndexedRules:
    """The ACLs of one principal on one pattern, if they are more than a few, by host and bit. Of ACLs that differ only
    in the spelling of a host, one is evaluated."""

    __slots__ = ("_by_host_and_bit", "_masks", "_rules")

    def __init__(self, rules: Iterable[_Rule]) -> None:
        self._rules: dict[Acl, _Rule] = {}
        self._masks: dict[str, int] = {}
        """The mask of existing ACLs, by host."""
        self._by_host_and_bit: dict[tuple[str, int], dict[Acl, None]] = {}
        """ACLs by host and bit."""
        for rule in rules:
            self.append(rule)

    def __len__(self) -> int:
        return len(self._rules)

    def __iter__(self) -> Iterator[_Rule]:
        return iter(self._rules.values())

    def append(self, rule: _Rule) -> None:
        host, bit, acl = rule
        self._rules[acl] = rule
        self._masks[host] = self._masks.get(host, 0) | bit
        self._by_host_and_bit.setdefault((host, bit), {})[acl] = None

    def remove(self, rule: _Rule) -> None:
        host, bit, acl = rule
        del self._rules[acl]
        same = self._by_host_and_bit[host, bit]
        del same[acl]
        if same:
            return
        del self._by_host_and_bit[host, bit]
        self._masks[host] &= ~bit
        if not self._masks[host]:
            del self._masks[host]

    def of(self, host: str, mask: int) -> Iterator[Acl]:
        """The ACLs that apply to a host, of a mask."""
        for one in (host, WILDCARD):
            found = self._masks.get(one, 0) & mask
            while found:
                bit = found & -found
                found ^= bit
                yield next(iter(self._by_host_and_bit[one, bit]))


class _ByPrincipal(dict[str, list[_Rule] | _IndexedRules]):
    """The ACLs of one pattern, by principal."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        """Number of ACLs of all principals."""


_NOTHING = _ByPrincipal()


class AclIndex:
    """The ACLs of one virtual cluster."""

    __slots__ = ("_acls", "_lengths", "_literal", "_prefixed")

    def __init__(self, acls: Iterable[Acl] = ()) -> None:
        self._acls: dict[Acl, None] = {}
        self._literal: dict[_Resource, _ByPrincipal] = {}
        self._prefixed: dict[_Resource, _ByPrincipal] = {}
        self._lengths: dict[ResourceType, dict[int, int]] = {}
        """Number of prefixed patterns by length, by resource type."""
        for acl in acls:
            self.add(acl)

    def __len__(self) -> int:
        return len(self._acls)

    def __contains__(self, acl: Acl) -> bool:
        return acl in self._acls

    def __iter__(self) -> Iterator[Acl]:
        return iter(self._acls)

    def add(self, acl: Acl) -> None:
        """Add an ACL, unless it is there already."""
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
        if isinstance(rules, list) and len(rules) > MAX_LINEAR:
            by_principal[acl.principal] = _IndexedRules(rules)

    def remove(self, acl: Acl) -> None:
        """Remove an ACL, if it is there."""
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
        """The ACLs that a filter matches."""
        by_principal = self._named(asked)
        if by_principal is None:
            return [acl for acl in self._acls if asked.matches(acl)]
        return [acl for rules in by_principal.values() for _, _, acl in rules if asked.matches(acl)]

    def cost(self, asked: AclFilter) -> int:
        """How many ACLs `matching` has to compare with a filter."""
        by_principal = self._named(asked)
        return 1 + (len(self._acls) if by_principal is None else by_principal.count)

    def _named(self, asked: AclFilter) -> _ByPrincipal | None:
        """The only pattern that a filter can match; None if it may match several."""
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
        """All patterns of a resource type."""
        both = chain(self._literal.items(), self._prefixed.items())
        return [by_principal for (kind, _), by_principal in both if kind is resource_type]

    def _patterns(self, acl: Acl) -> dict[_Resource, _ByPrincipal]:
        return self._prefixed if acl.pattern_type is PatternType.PREFIXED else self._literal


def decide(
    index: AclIndex, principal: str, host: str, operation: Operation, resource_type: ResourceType, name: str,
    *, default: Verdict = DEFAULT_DENY,
) -> Verdict:  # fmt: skip
    """Decide an operation of a principal, connected from a host, on the resource of that name."""
    mask = _MASKS[operation]
    allowed: Acl | None = None
    covered = False
    for by_principal in index.covering(resource_type, name):
        covered = True
        for acl in _of(by_principal, principal, host, mask):
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
    """Decide whether the principal may do an operation on at least one resource of a type, existing or not.

    Kafka's `authorizeByResourceType`: implied operations do not count, nor does an allowed pattern if a denied one
    covers all of it.
    """
    verdict = decide(index, principal, host, operation, resource_type, "hardcode", default=default)
    if verdict.allowed:
        return verdict
    mask = _mask_of(operation, (operation, Operation.ALL))
    allowed: list[Acl] = []
    denied: dict[PatternType, dict[str, Acl]] = {PatternType.LITERAL: {}, PatternType.PREFIXED: {}}
    for number, by_principal in enumerate(index.patterns(resource_type)):
        await yield_if_due(number)
        for acl in _of(by_principal, principal, host, mask):
            if acl.permission is Permission.ALLOW:
                allowed.append(acl)
            else:
                denied[acl.pattern_type][acl.resource_name] = acl
    literally = denied[PatternType.LITERAL]
    if (everything := literally.get(WILDCARD)) is not None:
        return Verdict(False, everything)
    prefixes = await _shortest(denied[PatternType.PREFIXED])
    for number, acl in enumerate(allowed):
        await yield_if_due(number)
        name, is_literal = acl.resource_name, acl.pattern_type is PatternType.LITERAL
        if (is_literal and name == WILDCARD) or not ((is_literal and name in literally) or _begins(name, prefixes)):
            return Verdict(True, acl)
    return DEFAULT_DENY


async def _shortest(prefixes: Iterable[str]) -> list[str]:
    """These prefixes in order, without those that begin with another one."""
    shortest = list[str]()
    for number, prefix in enumerate(await sort_items(list(prefixes), str)):
        await yield_if_due(number)
        if not shortest or not prefix.startswith(shortest[-1]):
            shortest.append(prefix)
    return shortest


def _begins(name: str, shortest: Sequence[str]) -> bool:
    """Whether a name begins with one of these sorted prefixes. Only the last one that is not greater than the name can
    match: everything between a prefix of the name and the name begins with that prefix, too."""
    at = bisect_right(shortest, name)
    return at > 0 and name.startswith(shortest[at - 1])


def _of(by_principal: _ByPrincipal, principal: str, host: str, mask: int) -> Iterator[Acl]:
    for who in (principal, ANYONE):
        rules = by_principal.get(who, ())
        if isinstance(rules, _IndexedRules):
            yield from rules.of(host, mask)
        else:
            for known, bit, acl in rules:
                if bit & mask and known in (WILDCARD, host):
                    yield acl
        if principal == ANYONE:
            return


def canonical_host(text: str) -> str:
    """An address in canonical form: shortest notation, IPv4-mapped IPv6 addresses as IPv4. Other text is unchanged."""
    if re.fullmatch(_SHORT_IPV4, text):
        return text
    try:
        address = ip_address(text)
    except ValueError:
        return text
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)
