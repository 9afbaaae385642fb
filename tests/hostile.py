"""Broken and hostile ONNX files, made on the fly: each must end in one clear ModelError."""

import os
from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import TensorProto as T
from onnx import helper as h


def varint(number: int) -> bytes:
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def relu(**changes: object) -> onnx.ModelProto:
    """A sound model: y = relu(x + W), W of four floats."""
    W = h.make_tensor("W", T.FLOAT, [4], [1.0, 2.0, 3.0, 4.0])
    graph = h.make_graph(
        [h.make_node("Add", ["x", "W"], ["s"], name="add"), h.make_node("Relu", ["s"], ["y"])],
        "g",
        [h.make_tensor_value_info("x", T.FLOAT, ["N", 4])],
        [h.make_tensor_value_info("y", T.FLOAT, ["N", 4])],
        [W],
    )
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 13)], ir_version=7, **changes)


def weight(**fields: object) -> Callable[[Path], Path]:
    """The sound model with its weight tampered with."""

    def make(folder: Path) -> Path:
        model = relu()
        tensor = model.graph.initializer[0]
        tensor.ClearField("float_data")
        for name, value in fields.items():
            if isinstance(value, list):
                tensor.ClearField(name)
                getattr(tensor, name).extend(value)
            else:
                setattr(tensor, name, value)
        return saved(model, folder)

    return make


def external(location: str, **entries: str) -> Callable[[Path], Path]:
    """The sound model with its weight in external data at `location`."""

    def make(folder: Path) -> Path:
        (folder / "good.data").write_bytes(bytes(64))
        model = relu()
        tensor = model.graph.initializer[0]
        tensor.ClearField("float_data")
        tensor.data_location = T.EXTERNAL
        for key, value in {"location": location, **entries}.items():
            tensor.external_data.add(key=key, value=value)
        return saved(model, folder)

    return make


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def raw(data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "model.onnx"
        path.write_bytes(data)
        return path

    return make


def tampered(change: Callable[[onnx.ModelProto], object]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        model = relu()
        change(model)
        return saved(model, folder)

    return make


def nested_bodies(depth: int) -> bytes:
    """If in If in If: a graph (6) in an attribute (5) in a node (1) of a graph."""
    graph = field(1, field(1, b"x") + field(2, b"y") + field(4, b"Relu"))
    node = field(1, b"c") + field(2, b"y") + field(4, b"If")
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"
        graph = field(1, node + field(5, attribute))
    return b"\x08\x07" + field(8, b"\x10\x0d") + field(7, graph)


def nested_types(depth: int) -> bytes:
    """sequence(sequence(…)): TypeProto.sequence_type (4) holds elem_type (1)."""
    kind = field(1, b"\x08\x01")
    for _ in range(depth):
        kind = field(4, field(1, kind))
    graph = field(11, field(1, b"x") + field(2, kind))
    return b"\x08\x07" + field(8, b"\x10\x0d") + field(7, graph)


def cyclic(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[1] = "y"


def assigned_twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(h.make_node("Neg", ["x"], ["y"]))


def self_calling_function(model: onnx.ModelProto) -> None:
    opset = h.make_opsetid("", 13)
    node = h.make_node("F", ["a"], ["b"], domain="own")
    own = h.make_opsetid("own", 1)
    model.functions.append(h.make_function("own", "F", ["a"], ["b"], [node], [opset, own]))
    model.opset_import.append(own)
    model.graph.node.append(h.make_node("F", ["x"], ["z"], domain="own"))


def unfolding_functions(model: onnx.ModelProto) -> None:
    opsets = [h.make_opsetid("", 13), h.make_opsetid("own", 1)]
    for level in range(41):
        op, domain = (f"F{level - 1}", "own") if level else ("Neg", "")
        calls = [
            h.make_node(op, ["a"], ["t"], domain=domain),
            h.make_node(op, ["t"], ["b"], domain=domain),
        ]
        model.functions.append(
            h.make_function("own", f"F{level}", ["a"], ["b"], calls, opsets)
        )
    model.opset_import.append(opsets[1])
    model.graph.node.append(h.make_node("F40", ["x"], ["z"], domain="own"))


def divided_by(op: str, **attributes: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        node = h.make_node(
            op, ["x"] if op == "DepthToSpace" else ["x", "W"], ["y"], **attributes
        )
        graph = h.make_graph(
            [node],
            "g",
            [h.make_tensor_value_info("x", T.FLOAT, [1, 4, 8, 8])],
            [h.make_tensor_value_info("y", T.FLOAT, None)],
            [h.make_tensor("W", T.FLOAT, [4, 4, 1, 1], [0.0] * 16)],
        )
        opset = h.make_opsetid("", 13)
        return saved(h.make_model(graph, opset_imports=[opset], ir_version=8), folder)

    return make


def huge_sparse(model: onnx.ModelProto) -> None:
    values = h.make_tensor("S", T.FLOAT, [1], [1.0])
    indices = h.make_tensor("i", T.INT64, [1], [0])
    model.graph.sparse_initializer.append(
        h.make_sparse_tensor(values, indices, [1 << 20, 1 << 20])
    )


def linked_out(folder: Path) -> Path:
    secret = folder.parent / f"{folder.name}-secret"
    secret.write_bytes(bytes(64))
    (folder / "link.data").symlink_to(secret)
    return external("link.data")(folder)


def linked_folder(folder: Path) -> Path:
    secret = folder.parent / f"{folder.name}-secrets"
    secret.mkdir()
    (secret / "w.data").write_bytes(bytes(64))
    (folder / "sub").symlink_to(secret, target_is_directory=True)
    return external("sub/w.data")(folder)


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.data")
    return external("pipe.data")(folder)


def _set(path: str, value: object) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        *parts, last = path.split(".")
        target: object = model
        for part in parts:
            target = target[int(part)] if part.isdigit() else getattr(target, part)  # type: ignore[index]
        if last.isdigit():
            target[int(last)] = value  # type: ignore[index]
        else:
            setattr(target, last, value)

    return change


SOUND = relu().SerializeToString()
HUGE = 1 << 40

# name: (how to make it, words the message must hold)
HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty": (raw(b""), "empty"),
    "truncated": (raw(SOUND[:-7]), "truncated"),
    "truncated in a length": (raw(b"\x08\x07\x3a\xff"), "truncated"),
    "text": (raw(b"hello, I am a model\n" * 20), "not"),
    "html": (raw(b"<!DOCTYPE html><html>404</html>"), "HTML"),
    "git lfs pointer": (raw(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "zip": (raw(b"PK\x03\x04" + bytes(100)), "zip"),
    "random bytes": (raw(bytes(range(256)) * 8), "not"),
    "zeros": (raw(bytes(1000)), "not an ONNX file"),
    "no graph": (raw(b"\x08\x07" + field(8, b"\x10\x0d")), "no graph"),
    "other protobuf": (raw(T(name="W", data_type=1, dims=[1]).SerializeToString()), ""),
    "10,000 nested bodies": (raw(nested_bodies(10_000)), "nested"),
    "40 nested bodies": (raw(nested_bodies(40)), "nested"),
    "10,000 nested types": (raw(nested_types(10_000)), "nested"),
    "groups": (raw(b"\x0b" * 100_000), "not an ONNX file"),
    "text that is not UTF-8": (raw(b"\x08\x07\x12\x02\xff\xfe" + SOUND[2:]), "UTF-8"),
    "huge declared weight": (weight(dims=[HUGE, HUGE], raw_data=b"abcd"), "bytes of data"),
    "huge declared weight in fields": (weight(dims=[HUGE], float_data=[1.0]), "values in"),
    "huge declared text": (
        weight(dims=[HUGE], data_type=T.STRING, string_data=[b"a"]),
        "values",
    ),
    "negative size": (weight(dims=[-4], raw_data=bytes(16)), "negative size -4"),
    "two negative sizes": (weight(dims=[-2, -2], raw_data=bytes(16)), "negative size -2"),
    "data too short": (weight(raw_data=bytes(15)), "15 bytes of data"),
    "data too long": (weight(raw_data=bytes(17)), "17 bytes of data"),
    "data of another type": (weight(data_type=T.DOUBLE, raw_data=bytes(16)), "32 bytes"),
    "no data": (weight(), "0 values"),
    "data in the wrong field": (weight(data_type=T.INT64, float_data=[1.0] * 4), "int64_data"),
    "text as raw data": (weight(data_type=T.STRING, raw_data=bytes(4)), "text as raw data"),
    "unknown element type": (weight(data_type=99, raw_data=bytes(16)), "element type 99"),
    "undefined element type": (weight(data_type=0, raw_data=bytes(16)), "element type 0"),
    "absolute external path": (external("/etc/passwd"), "absolute"),
    "windows external path": (external("C:\\windows\\win.ini"), "absolute"),
    "external path upwards": (external("../../etc/passwd"), "leaves the folder"),
    "external path in the middle": (external("a/../../b"), "leaves the folder"),
    "external path with NUL": (external("good.data\0.txt"), "leaves the folder"),
    "external link out": (linked_out, "link out of the folder"),
    "external folder link out": (linked_folder, "link out of the folder"),
    "external pipe": (pipe, "missing"),
    "external missing": (external("nothing.data"), "missing"),
    "external folder": (external("."), "missing"),
    "external without location": (external(""), "without a location"),
    "external offset": (external("good.data", offset="60"), "ends at byte 76"),
    "external huge offset": (external("good.data", offset=str(1 << 62)), "not a size"),
    "external negative offset": (external("good.data", offset="-16"), "not a size"),
    "external length": (external("good.data", length="64"), "64 bytes of external data"),
    "external huge length": (external("good.data", length="9" * 30), "not a size"),
    "cyclic": (tampered(cyclic), "cycle"),
    "assigned twice": (tampered(assigned_twice), "assigned twice"),
    "input assigned": (tampered(_set("graph.node.1.output.0", "x")), "assigned twice"),
    "two inputs of one name": (
        tampered(lambda m: m.graph.input.append(m.graph.input[0])),
        "declared twice",
    ),
    "two weights of one name": (
        tampered(lambda m: m.graph.initializer.append(m.graph.initializer[0])),
        "declared twice",
    ),
    "missing weight": (tampered(lambda m: m.graph.ClearField("initializer")), "reads 'W'"),
    "missing output": (tampered(_set("graph.output.0.name", "z")), "output 'z'"),
    "no output": (tampered(lambda m: m.graph.ClearField("output")), "no output"),
    "unknown operator": (tampered(_set("graph.node.1.op_type", "Reluu")), "Reluu"),
    "unknown domain": (tampered(_set("graph.node.1.domain", "evil.corp")), "evil.corp"),
    "opset 0": (tampered(_set("opset_import.0.version", 0)), "opset 0"),
    "opset 99": (tampered(_set("opset_import.0.version", 99)), "opset 99"),
    "negative opset": (tampered(_set("opset_import.0.version", -1)), "opset -1"),
    "IR 2": (tampered(_set("ir_version", 2)), "IR version 2"),
    "IR 99": (tampered(_set("ir_version", 99)), "IR version 99"),
    "function that calls itself": (tampered(self_calling_function), "calls itself"),
    "functions that unfold": (tampered(unfolding_functions), "nodes once its functions"),
    "no groups": (divided_by("ConvTranspose", group=0), "group is 0"),
    "no strides": (divided_by("Conv", strides=[0, 0]), "strides is 0"),
    "absurd blocks": (divided_by("DepthToSpace", blocksize=1 << 40), "blocksize is 1099"),
    "huge sparse weight": (tampered(huge_sparse), "too large"),
}
