"""Ways in which a file can be damaged or crafted; all that is random comes from `rng`."""

import copy
import json
import struct

DEEP = "deep inside"
# what a value of JSON is replaced by: other types, signs, sizes, and what is no number
STRANGE = (
    *(None, True, -1, 0, 3, 0.5, 2**16, 2**31, 2**63, 10**400, 1e308, float("nan"), float("inf")),
    *("", "x", "é\n\u202e", "9" * 40, "../../etc", [], {}, [1] * 40, [[1, "2"]], {"a": {"b": -1}}, DEEP),
)


def bytes_changed(content, rng):
    """One of: flipped bits, bytes of extreme values, a part cut out, repeated or taken away at the end."""
    changed = bytearray(content)
    # most of what is read lies at the beginning
    reach = len(changed) if rng.random() < 0.5 else min(len(changed), 200)
    kind = rng.randrange(5)
    if kind == 0:
        for _ in range(rng.randint(1, 8)):
            changed[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        at = rng.randrange(reach)
        changed[at : at + rng.choice((1, 2, 4, 8))] = rng.choice((b"\0", b"\xff", b"\x7f")) * rng.choice(
            (1, 2, 4, 8)
        )
    elif kind == 2:
        at = rng.randrange(reach)
        del changed[at : at + rng.randint(1, 40)]
    elif kind == 3:
        at = rng.randrange(reach)
        changed[at:at] = changed[at : at + rng.randint(1, 40)]
    else:
        del changed[rng.randrange(len(changed)) :]
    return bytes(changed)


def json_changed(content, rng):
    """JSON in which one value is replaced, taken away or told under another name."""
    return dumped(_changed(json.loads(content), rng))


def lines_changed(content, rng):
    """Lines of JSON, one of them changed."""
    lines = content.splitlines()
    at = rng.randrange(len(lines))
    lines[at] = json_changed(lines[at], rng)
    return b"\n".join(lines) + b"\n"


def header_changed(content, rng):
    """A safetensors file with a changed header, or changed JSON in its metadata, and no digest."""
    header, data = opened(content)
    header["__metadata__"].pop("sha256", None)
    told = header["__metadata__"].get("qna")
    if told is not None and rng.random() < 0.7:
        header["__metadata__"]["qna"] = json_changed(told, rng).decode()
    else:
        header = _changed(header, rng)
    return safetensors(header, data)


def cells_changed(content, rng):
    """A CSV in which a cell holds something else."""
    lines = content.decode().splitlines()
    at = rng.randrange(len(lines))
    cells = lines[at].split(",")
    strange = rng.choice(STRANGE)
    cells[rng.randrange(len(cells))] = strange if isinstance(strange, str) else dumped(strange).decode()
    lines[at] = ",".join(cells)
    return ("\n".join(lines) + "\n").encode()


def opened(content):
    """Header and data of a safetensors file."""
    end = 8 + struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8:end]), content[end:]


def safetensors(header, data=b""):
    """A safetensors file."""
    text = header if isinstance(header, bytes) else dumped(header)
    return struct.pack("<Q", len(text)) + text + data


def dumped(value):
    """JSON with everything that Python's reader takes, however deep."""
    return json.dumps(value).replace(json.dumps(DEEP), "[" * 900 + "]" * 900).encode()


def _changed(tree, rng):
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    if not places:
        return rng.choice(STRANGE)
    node, key = rng.choice(places)
    kind = rng.randrange(6)
    if kind == 0:
        del node[key]
    elif kind == 1 and isinstance(node, dict):
        node[f"{key}s"] = node.pop(key)
    else:
        node[key] = rng.choice(STRANGE)
    return tree


def _places(node):
    """Every value in a tree, as what holds it and its name or number there."""
    named = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in list(named):
        yield node, key
        yield from _places(child)
