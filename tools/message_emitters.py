"""Write the body of one reader or writer function: one direction of one version of one message.

Nested structs are inlined. Neighbouring fields of fixed size, length prefixes and tag counts go through one
precompiled `Struct`: `push` collects them and `flush` writes the call.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import calcsize

from message_model import FIXED, Field, Struct, smallest, snake


class Module:
    """Functions of one generated module, shared when their text is the same."""

    def __init__(self) -> None:
        self.functions: dict[str, str] = {}  # text with a placeholder for the name -> name
        self.structs: dict[str, str] = {}  # name -> how it is made

    def function(self, name: str, parameters: str, body: list[str]) -> str:
        text = "\n".join([f"def NAME({parameters}):", *body])
        return self.functions.setdefault(text, name)

    def struct(self, direction: str, form: str) -> str:
        name = f"{direction}_" + form.replace("16s", "S").replace("?", "Z")
        method = "unpack_from" if direction == "U" else "pack"
        self.structs[name] = f'{name} = Struct(">{form}").{method}'
        return name

    def text(self) -> list[str]:
        lines = [self.structs[name] for name in sorted(self.structs)]
        for text, name in self.functions.items():
            lines += ["", "", text.replace("NAME", name, 1)]
        return lines


@dataclass(slots=True)
class Emitter:
    """Lines of one function and the fixed-size fields that wait to share a `Struct` call."""

    module: Module
    version: int
    flexible: bool
    lines: list[str] = field(default_factory=list)
    indent: int = 1
    waiting: list[tuple[str, str]] = field(default_factory=list)
    depth: int = 0

    def line(self, text: str) -> None:
        self.lines.append("    " * self.indent + text)

    def push(self, form: str, what: str = "") -> None:
        self.waiting.append((form, what))

    def name(self, stem: str) -> str:
        self.depth += 1
        return f"{stem}{self.depth}"

    def split(self) -> tuple[str, list[str]]:
        form = "".join(form for form, _ in self.waiting)
        values = [what for _, what in self.waiting if what]
        self.waiting = []
        return form, values


class Reader(Emitter):
    """`b` is the buffer, `p` the position, `end` the buffer's length, `m` a view of it."""

    def flush(self) -> None:
        form, values = self.split()
        if not form:
            return
        if form == "B":
            self.line(f"{values[0]} = b[p]")
        elif form == "?":
            self.line(f"{values[0]} = b[p] != 0")
        else:
            comma = "," if len(values) == 1 else ""
            self.line(f"{', '.join(values)}{comma} = {self.module.struct('U', form)}(b, p)")
        self.line(f"p += {calcsize('>' + form)}")

    def length(self, wide: str) -> str:
        name = self.name("n")
        self.push("B" if self.flexible else wide, name)
        self.flush()
        if self.flexible:
            self.line(f"if {name} > 127:")
            self.line(f"    {name}, p = {'string_size' if wide == 'h' else 'uvarint'}(b, p - 1)")
        return name

    def presence(self, length: str, target: str, nullable: bool) -> bool:
        """Deal with null. True if the value's own lines went one level deeper."""
        least = 1 if self.flexible else 0
        self.line(f"if {length} < {least}:")
        if not nullable:
            self.line("    raise null_error()")
            return False
        self.line("    " + target.format("None"))
        self.line("else:")
        self.indent += 1
        return True

    def slice(self, type_name: str, target: str, nullable: bool) -> None:
        length = self.length("h" if type_name == "string" else "i")
        deeper = self.presence(length, target, nullable)
        self.line(f"e = p + {length}" + (" - 1" if self.flexible else ""))
        value = {"string": 'str(b[p:e], "utf-8")', "bytes": "bytes(b[p:e])", "records": "m[p:e]"}[type_name]
        self.line(target.format(value))
        self.line("p = e")
        self.indent -= deeper

    def array(self, item: Field, target: str) -> None:
        length = self.length("i")
        deeper = self.presence(length, target, self.version in item.nullable)
        if self.flexible:
            self.line(f"{length} -= 1")
        if item.struct is not None:
            size = smallest(item.struct, self.version, self.flexible)
        elif item.type in FIXED:
            size = calcsize(">" + FIXED[item.type])
        else:
            size = 1 if self.flexible else 2
        self.line(f"if {length}{f' * {size}' if size > 1 else ''} > end - p or ({length} > 1 and crowded({length})):")
        self.line("    raise length_error()")
        if item.type == "uuid":
            self.line(target.format(f"[bytes(b[i : i + 16]) for i in range(p, p + {length} * 16, 16)]"))
            self.line(f"p += {length} * 16")
        elif item.type in FIXED:
            self.line(target.format(f'list(unpack_from(f">{{{length}}}{FIXED[item.type]}", b, p))'))
            self.line(f"p += {length}" + (f" * {size}" if size > 1 else ""))
        else:
            self.loop(item, length, target)
        self.indent -= deeper

    def loop(self, item: Field, length: str, target: str) -> None:
        values = self.name("v")
        self.line(f"{values} = []")
        self.line(target.format(values))
        self.line(f"for _ in range({length}):")
        self.indent += 1
        if item.struct is not None:
            element = self.name("z")
            self.line(f"{element} = new({item.struct.name})")
            self.line(f"{values}.append({element})")
            self.struct(item.struct, element)
            self.flush()
        else:
            self.slice(item.type, values + ".append({})", nullable=False)
        self.indent -= 1

    def field(self, item: Field, owner: str) -> None:
        target = f"{owner}.{item.name} = {{}}"
        if item.array:
            self.array(item, target)
        elif item.struct is not None:
            self.nested(item, item.struct, target)
        elif item.type in FIXED:
            self.push(FIXED[item.type], f"{owner}.{item.name}")
        else:
            self.slice(item.type, target, self.version in item.nullable)

    def nested(self, item: Field, struct: Struct, target: str) -> None:
        deeper = False
        self.flush()
        if self.version in item.nullable and not item.maybe_tagged:
            present = self.name("n")
            self.push("b", present)
            self.flush()
            self.line(f"if {present} < 0:")
            self.line("    " + target.format("None"))
            self.line("else:")
            self.indent += 1
            deeper = True
        element = self.name("z")
        self.line(f"{element} = new({struct.name})")
        self.line(target.format(element))
        self.struct(struct, element)
        self.flush()
        self.indent -= deeper

    def struct(self, struct: Struct, owner: str) -> None:
        tagged = struct.tagged(self.version)
        for item in struct.fields:
            if item in struct.absent(self.version) or item in tagged:
                self.line(f"{owner}.{item.name} = {item.literal}")
        for item in struct.inside(self.version):
            self.field(item, owner)
        if not self.flexible:
            return
        tags = self.name("t")
        self.push("B", tags)
        self.flush()
        self.line(f"if {tags}:")
        if not tagged:
            self.line("    p = skip_tags(b, p - 1)")
        else:
            name = read_tags(self.module, struct, self.version)
            self.line(f"    p = {name}({owner}, b, p - 1)")


def finish_reader(emitter: Reader, first: list[str]) -> list[str]:
    """Put what the body turned out to need in front of it."""
    body = "\n".join(emitter.lines)
    head = list(first)
    if "end - p" in body:
        head.append("    end = len(b)")
    if "m[p:e]" in body:
        head.append("    m = memoryview(b)")
    return head + emitter.lines


def read_tags(module: Module, struct: Struct, version: int) -> str:
    """A function that reads the tag section of a struct with known tags; returns the function's name."""
    emitter = Reader(module, version, flexible=True, indent=2)
    word = "if"
    for item in struct.tagged(version):
        emitter.line(f"{word} tag == {item.tag}:")
        emitter.indent += 1
        emitter.field(item, "o")
        emitter.flush()
        emitter.indent -= 1
        word = "elif"
    emitter.lines += ["        else:", "            p = stop", "        if p != stop:", "            raise tag_error()"]
    head = ["    count, p = uvarint(b, p)"]
    loop = [
        "    for _ in range(count):",
        "        tag, p = uvarint(b, p)",
        "        size, p = uvarint(b, p)",
        "        stop = p + size",
    ]
    body = finish_reader(emitter, head)
    at = len(body) - len(emitter.lines)
    body[at:at] = loop
    return module.function(f"read_tags_{snake(struct.name)}_v{version}", "o, b, p", [*body, "    return p"])


def read_message(module: Module, name: str, root: Struct, version: int, flexible: bool) -> str:
    emitter = Reader(module, version, flexible)
    emitter.line(f"o = new({root.name})")
    emitter.struct(root, "o")
    emitter.flush()
    emitter.line("return o, p")
    return module.function(f"{name}_v{version}", "b, p", finish_reader(emitter, []))


class Writer(Emitter):
    """`w` appends small buffers, `put` takes record data."""

    def flush(self) -> None:
        form, values = self.split()
        if not form:
            return
        if not values:
            self.line(f'w(b"{chr(92) + "0"}")' if form == "x" else f"w(bytes({len(form)}))")
        else:
            self.line(f"w({self.module.struct('P', form)}({', '.join(values)}))")

    def length(self, name: str, wide: str) -> None:
        """Write a length that is in its wire form already; in flexible versions that is one more than the count."""
        if not self.flexible:
            self.push(wide, name)
            self.flush()
        elif not self.waiting:
            self.line(f"w(ONE_BYTE[{name}] if {name} < 128 else encode_uvarint({name}))")
        else:
            waiting = self.waiting.copy()
            self.line(f"if {name} < 128:")
            self.indent += 1
            self.push("B", name)
            self.flush()
            self.indent -= 1
            self.line("else:")
            self.indent += 1
            self.waiting = waiting
            self.flush()
            self.line(f"w(encode_uvarint({name}))")
            self.indent -= 1

    def counted(self, value: str, count: str, nullable: bool) -> str:
        """Lines that put the wire form of a length into a variable; returns the variable."""
        name = self.name("n")
        counted = count.format(value) + (" + 1" if self.flexible else "")
        if nullable:
            self.line(f"{name} = {0 if self.flexible else -1} if {value} is None else {counted}")
        else:
            self.line(f"{name} = {counted}")
        return name

    def guard(self, name: str) -> str:
        return f"if {name} > {1 if self.flexible else 0}:"

    def slice(self, type_name: str, source: str, nullable: bool) -> None:
        value = self.name("s")
        if type_name == "string" and nullable:
            self.line(f"{value} = {source}")
            self.line(f"if {value} is not None:")
            self.line(f"    {value} = {value}.encode()")
        else:
            self.line(f"{value} = {source}" + (".encode()" if type_name == "string" else ""))
        length = self.counted(value, "length_of({})" if type_name == "records" else "len({})", nullable)
        self.length(length, "h" if type_name == "string" else "i")
        append = f"put({value})" if type_name == "records" else f"w({value})"
        if nullable:
            self.line(self.guard(length))
            append = "    " + append
        self.line(append)

    def array(self, item: Field, source: str) -> None:
        values = self.name("v")
        self.line(f"{values} = {source}")
        nullable = self.version in item.nullable
        length = self.counted(values, "len({})", nullable)
        self.length(length, "i")
        if item.type == "uuid":
            self.line(self.guard(length))
            self.line(f'    w(b"".join({values}))')
        elif item.type in FIXED:
            self.line(self.guard(length))
            self.line(f'    w(pack(f">{{len({values})}}{FIXED[item.type]}", *{values}))')
        else:
            element = self.name("z")
            self.line(f"for {element} in {values}{' or ()' if nullable else ''}:")
            self.indent += 1
            if item.struct is not None:
                self.struct(item.struct, element)
            else:
                self.slice(item.type, element, nullable=False)
            self.flush()
            self.indent -= 1

    def field(self, item: Field, owner: str) -> None:
        source = f"{owner}.{item.name}"
        if item.array:
            self.array(item, source)
        elif item.struct is not None:
            self.nested(item, item.struct, source)
        elif item.type in FIXED:
            self.push(FIXED[item.type], source)
        else:
            self.slice(item.type, source, self.version in item.nullable)

    def nested(self, item: Field, struct: Struct, source: str) -> None:
        element = self.name("z")
        self.line(f"{element} = {source}")
        if self.version not in item.nullable or item.maybe_tagged:
            self.struct(struct, element)
            return
        waiting = self.waiting.copy()
        self.line(f"if {element} is None:")
        self.indent += 1
        self.push("b", "-1")
        self.flush()
        self.indent -= 1
        self.line("else:")
        self.indent += 1
        self.waiting = waiting
        self.push("b", "1")
        self.struct(struct, element)
        self.flush()
        self.indent -= 1

    def struct(self, struct: Struct, owner: str) -> None:
        for item in struct.inside(self.version):
            self.field(item, owner)
        if not self.flexible:
            return
        tagged = struct.tagged(self.version)
        if not tagged:
            self.push("x")
            return
        name = write_tags(self.module, struct, self.version)
        waiting = self.waiting.copy()
        self.line("if " + " or ".join(differs(item, owner) for item in tagged) + ":")
        self.indent += 1
        self.flush()
        self.line(f"{name}({owner}, w)")
        self.indent -= 1
        self.line("else:")
        self.indent += 1
        self.waiting = waiting
        self.push("x")
        self.flush()
        self.indent -= 1


def differs(item: Field, owner: str) -> str:
    """Whether a tagged field may have to be written: it is not at its default."""
    source = f"{owner}.{item.name}"
    if item.starts_null:
        return f"{source} is not None"
    if item.array or item.literal in ("False", '""', 'b""'):
        return source
    return f"{source} != {item.literal}"


def write_tags(module: Module, struct: Struct, version: int) -> str:
    """A function that writes the tag section of a struct with known tags; returns the function's name."""
    tagged = struct.tagged(version)
    emitter = Writer(module, version, flexible=True)
    for item in tagged:
        condition = differs(item, "o")
        if item.struct is not None and not item.array:
            condition += f" and o.{item.name} != {item.struct.name}()"
        emitter.line(f"has{item.tag} = bool({condition})")
    emitter.line("out(encode_uvarint(" + " + ".join(f"has{item.tag}" for item in tagged) + "))")
    for item in tagged:
        emitter.line(f"if has{item.tag}:")
        emitter.indent += 1
        emitter.line("parts = []")
        emitter.line("w = parts.append")
        emitter.field(item, "o")
        emitter.flush()
        emitter.line('body = b"".join(parts)')
        emitter.line(f"out(encode_uvarint({item.tag}) + encode_uvarint(len(body)) + body)")
        emitter.indent -= 1
    return module.function(f"write_tags_{snake(struct.name)}_v{version}", "o, out", emitter.lines)


def write_message(module: Module, name: str, root: Struct, version: int, flexible: bool) -> str:
    emitter = Writer(module, version, flexible)
    emitter.struct(root, "o")
    emitter.flush()
    if not emitter.lines:
        emitter.line("pass")
    return module.function(f"{name}_v{version}", "o, w, put", emitter.lines)
