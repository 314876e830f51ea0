"""Generate penstock.wire.messages from the facts of Kafka's message schemas.

    tools/generate_messages.py --import kafka-clients.jar   refresh tools/kafka_messages.json from a release
    tools/generate_messages.py                              write src/penstock/wire/messages
    tools/generate_messages.py --check                      fail if the written modules are not what would be written

The jar is org.apache.kafka:kafka-clients from Maven Central; only facts are kept of its schemas (names, types,
versions, defaults). Out of them come, for every API of the broker listener, one module with a slotted class per
struct and the server's direction (read a request, write a response), and one module in `client/` with the other.

"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

from message_emitters import Module, read_message, write_message
from message_model import LAST, Message, Struct, build_message, snake, struct_names

ROOT = Path(__file__).resolve().parent.parent
FACTS = ROOT / "tools" / "kafka_messages.json"
OWN = ROOT / "tools" / "penstock_messages.json"
"""Messages that Kafka does not have, written by hand; their keys are far from Kafka's."""
TARGET = ROOT / "src" / "penstock" / "wire" / "messages"
DATA_MESSAGES = ("ConsumerProtocolSubscription", "ConsumerProtocolAssignment")

PRIMITIVES = (
    "EMPTY", "ONE_BYTE", "ZERO_UUID", "Malformed", "Message", "crowded", "encode_uvarint", "length_error", "length_of",
    "new", "null_error", "skip_tags", "string_size", "tag_error", "uvarint",
)  # fmt: skip


# ---- facts ---------------------------------------------------------------------------------------------------


def import_jar(jar: Path) -> None:
    """Keep the facts of every message of the broker listener."""
    messages = []
    with zipfile.ZipFile(jar) as archive:
        for name in sorted(archive.namelist()):
            if not re.fullmatch(r"common/message/\w+\.json", name):
                continue
            text = re.sub(r"(?m)^\s*//.*$", "", archive.read(name).decode())
            schema = json.loads(text)
            if "broker" in schema.get("listeners", ()) or schema["name"] in DATA_MESSAGES:
                messages.append(schema)
    keys = {schema["apiKey"] for schema in messages if "apiKey" in schema}
    with zipfile.ZipFile(jar) as archive:
        for name in sorted(archive.namelist()):
            if re.fullmatch(r"common/message/\w+Response\.json", name):
                schema = json.loads(re.sub(r"(?m)^\s*//.*$", "", archive.read(name).decode()))
                if schema["apiKey"] in keys:
                    messages.append(schema)
    messages.sort(key=lambda schema: (schema.get("apiKey", LAST), schema["type"], schema["name"]))
    facts = {"source": jar.stem, "messages": [condense_message(schema) for schema in messages]}
    FACTS.write_text(render_facts(facts))


def condense_message(schema: dict[str, Any]) -> dict[str, Any]:
    kept = {
        "name": schema["name"],
        "type": schema["type"],
        "api_key": schema.get("apiKey"),
        "versions": schema["validVersions"],
        "flexible": schema.get("flexibleVersions", "none"),
        "latest_unstable": schema.get("latestVersionUnstable"),
        "structs": {struct["name"]: condense_fields(struct["fields"]) for struct in schema.get("commonStructs", ())},
        "fields": condense_fields(schema["fields"]),
    }
    return {key: value for key, value in kept.items() if value or value == 0}


def condense_fields(fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
    condensed = []
    for item in fields:
        kept = {
            "name": item["name"],
            "type": item["type"],
            "versions": item["versions"],
            "nullable": item.get("nullableVersions"),
            "tagged": item.get("taggedVersions"),
            "tag": item.get("tag"),
            "default": str(item["default"]) if "default" in item else None,
            "fields": condense_fields(item["fields"]) if "fields" in item else None,
        }
        condensed.append({key: value for key, value in kept.items() if value is not None})
    return condensed


def render_facts(facts: dict[str, Any]) -> str:
    """JSON with one field to a line, so that a new release reads as a small difference."""

    def render(item: Any, indent: str) -> str:
        if isinstance(item, dict) and ("fields" in item or "structs" in item or "messages" in item):
            rows = [f"{indent} {json.dumps(key)}: {render(value, indent + ' ')}" for key, value in item.items()]
            return "{\n" + ",\n".join(rows) + "\n" + indent + "}"
        if isinstance(item, dict) and any(isinstance(value, list) for value in item.values()):
            rows = [f"{indent} {json.dumps(key)}: {render(value, indent + ' ')}" for key, value in item.items()]
            return "{\n" + ",\n".join(rows) + "\n" + indent + "}"
        if isinstance(item, list) and item:
            return "[\n" + ",\n".join(f"{indent} {render(value, indent + ' ')}" for value in item) + "\n" + indent + "]"
        return json.dumps(item)

    return render(facts, "") + "\n"


# ---- modules -------------------------------------------------------------------------------------------------


def class_lines(struct: Struct, *, response: bool) -> list[str]:
    """One slotted class with the fields of all versions and a typed keyword constructor."""
    slots = ", ".join(f'"{item.name}"' for item in struct.fields)
    lines = [f"class {struct.name}(Message):", f"    __slots__ = ({slots}{',' if len(struct.fields) == 1 else ''})"]
    if not struct.fields:
        return lines
    lines += ["", "    def __init__(", "        self,", "        *,"]
    for item in struct.fields:
        fresh = not item.starts_null and (item.array or item.struct is not None)
        default = "EMPTY" if fresh else item.literal
        lines.append(f"        {item.name}: {item.annotation(response=response)} = {default},")
    lines.append("    ) -> None:")
    for item in struct.fields:
        fresh = not item.starts_null and (item.array or item.struct is not None)
        value = f"{item.literal} if {item.name} is EMPTY else {item.name}" if fresh else item.name
        lines.append(f"        self.{item.name} = {value}")
    return lines


def table_lines(name: str, functions: dict[int, str]) -> list[str]:
    return ["", "", f"{name} = {{", *(f"    {version}: {function}," for version, function in functions.items()), "}"]


def direction(module: Module, message: Message, verb: str, stem: str) -> dict[int, str]:
    """Emit one direction of a message; returns the function of each version."""
    emit = read_message if verb == "read" else write_message
    return {
        version: emit(module, f"{verb}_{stem}", message.root, version, version in message.flexible)
        for version in range(message.versions.low, message.versions.high + 1)
    }


def header_lines(title: str, body: list[str], imports: list[str]) -> list[str]:
    """The top of a module: only the imports that its body uses."""
    text = "\n".join(body)
    lines = [
        f'"""{title} Generated by tools/generate_messages.py: do not edit."""',
        "",
        "# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs",
        "",
        "from __future__ import annotations",
        "",
    ]
    from_struct = [name for name in ("Struct", "pack", "unpack_from") if re.search(rf"(?<![_\w.]){name}\(", text)]
    if from_struct:
        lines += [f"from struct import {', '.join(from_struct)}", ""]
    used = [name for name in PRIMITIVES if re.search(rf"\b{name}\b", text)]
    if used:
        lines += ["from penstock.wire.primitives import (", *(f"    {name}," for name in used), ")"]
    return [*lines, *imports, "", ""]


def render(title: str, classes: list[str], module: Module, tables: list[str], imports: list[str]) -> str:
    functions = module.text()
    body = classes + functions + tables
    lines = header_lines(title, body, imports) + classes + (["", ""] if classes else []) + functions + tables
    return "\n".join(lines) + "\n"


def classes_of(messages: list[Message]) -> list[str]:
    lines: list[str] = []
    for message in messages:
        for struct in message.structs:
            lines += (["", ""] if lines else []) + class_lines(struct, response=message.kind == "response")
    return lines


def server_module(title: str, request: Message, response: Message) -> str:
    module = Module()
    tables = table_lines("READ_REQUEST", direction(module, request, "read", "request"))
    tables += table_lines("WRITE_RESPONSE", direction(module, response, "write", "response"))
    return render(
        f"{title}: its structs, and a server's way with them.", classes_of([request, response]), module, tables, []
    )


def client_module(title: str, name: str, request: Message, response: Message) -> str:
    module = Module()
    tables = table_lines("WRITE_REQUEST", direction(module, request, "write", "request"))
    tables += table_lines("READ_RESPONSE", direction(module, response, "read", "response"))
    text = "\n".join(module.text())
    structs = [struct.name for message in (request, response) for struct in message.structs]
    used = sorted(struct for struct in structs if re.search(rf"\b{struct}\b", text))
    imports = [f"from penstock.wire.messages.{name} import (", *(f"    {struct}," for struct in used), ")"]
    return render(f"{title}: a client's way with its structs.", [], module, tables, imports)


def data_module(messages: list[Message]) -> str:
    module = Module()
    tables: list[str] = []
    for message in messages:
        stem = snake(message.root.name.removeprefix("ConsumerProtocol"))
        tables += table_lines(f"READ_{stem.upper()}", direction(module, message, "read", stem))
        tables += table_lines(f"WRITE_{stem.upper()}", direction(module, message, "write", stem))
    return render(
        "What consumers put into the classic group protocol's blobs.", classes_of(messages), module, tables, []
    )


def index_module(source: str, requests: dict[str, Message]) -> str:
    lines = [
        f'"""Every API of the broker listener in {source}, and ours.',
        "",
        "Generated by tools/generate_messages.py: do not edit.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "# API key: module, oldest version, newest version, newest stable version, first flexible version.",
        "APIS: dict[int, tuple[str, int, int, int, int]] = {",
    ]
    for name, message in sorted(requests.items(), key=lambda item: item[1].api_key or 0):
        low, high = message.versions.low, message.versions.high
        stable = high - message.latest_unstable
        flexible = message.flexible.low if message.flexible.low <= message.flexible.high else LAST
        lines.append(f'    {message.api_key}: ("{name}", {low}, {high}, {stable}, {flexible}),')
    return "\n".join([*lines, "}"]) + "\n"


def generate() -> dict[str, str]:
    """Every generated file: path below the target folder, and text."""
    facts = json.loads(FACTS.read_text())
    pairs: dict[str, dict[str, dict[str, Any]]] = {}
    for message in facts["messages"] + json.loads(OWN.read_text())["messages"]:
        group = re.sub(r"(Request|Response|Subscription|Assignment)$", "", message["name"])
        pairs.setdefault(group, {})[message["type"] if "api_key" in message else message["name"]] = message
    files = {"__init__.py": '"""Generated Kafka messages: the server\'s half. `penstock.wire.codec` is the door."""\n'}
    files["client/__init__.py"] = '"""Generated Kafka messages: the client\'s half. Servers never import it."""\n'
    requests: dict[str, Message] = {}
    for group, raw in pairs.items():
        first, second = raw.values()
        clashing = struct_names(first) & struct_names(second)
        built = {kind: build_message(message, clashing) for kind, message in raw.items()}
        name = snake(group)
        if "request" not in built:
            files[f"{name}.py"] = data_module(list(built.values()))
            continue
        request, response = built["request"], built["response"]
        if (request.versions, request.flexible) != (response.versions, response.flexible):
            raise SystemExit(f"{group}: request and response disagree on versions")
        requests[name] = request
        title = f"{group}, API key {request.api_key}, versions {request.versions.low}-{request.versions.high}"
        files[f"{name}.py"] = server_module(title, request, response)
        files[f"client/{name}.py"] = client_module(title, name, request, response)
    files["index.py"] = index_module(facts["source"], requests)
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate penstock.wire.messages.")
    parser.add_argument("--import", dest="jar", type=Path, help="refresh the facts from a kafka-clients jar")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something would change")
    options = parser.parse_args()
    if options.jar is not None:
        import_jar(options.jar)
    files = generate()
    written = {str(path.relative_to(TARGET)): path for path in TARGET.rglob("*.py")}
    different = [name for name, text in files.items() if name not in written or written[name].read_text() != text]
    stale = [name for name in written if name not in files]
    if options.check:
        for name in different + stale:
            print(f"{TARGET / name} is not what the generator writes")
        return 1 if different or stale else 0
    for name in different:
        path = TARGET / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[name])
    for name in stale:
        written[name].unlink()
    print(f"{len(files)} modules, {len(different)} written, {len(stale)} removed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
