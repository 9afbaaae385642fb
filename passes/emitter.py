"""The graph side of lowering: turns factors into Conv, ConvTranspose and MatMul nodes."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from .geometry import Geometry, Weights


class SiteEmitter:
    """Builds the nodes that replace one site; the graph is not touched.

    Node names are `<site>/<part>`, values and initialisers are named after their node, and
    every node carries where it came from.

    Args:
        site: name of the site.
        dtype: element type of the layer.
        taken: names in use in the model; new ones are added.
        provenance: metadata of every node.
        shared: constants made for other sites of the same weight, by part; new ones are added,
            equal ones are used again.
    """

    def __init__(
        self,
        site: str,
        dtype: ir.DataType,
        taken: set[str],
        provenance: dict[str, str],
        shared: dict[str, ir.Value] | None = None,
    ) -> None:
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self._site, self._dtype, self._taken = site, dtype, taken
        self._provenance = provenance
        self._shared = {} if shared is None else shared

    def apply(self, x: ir.Value, W: Weights, part: str, geometry: Geometry) -> ir.Value:
        """See `forms.form.Emitter`."""
        if geometry.op == "MatMul":
            return self._product(x, W, part, geometry)
        g, m, c = W.shape[:3]
        W = W.reshape(g, m, c, *geometry.kernel)
        attributes: dict[str, int | str | tuple[int, ...]] = {
            "group": g,
            "kernel_shape": geometry.kernel,
            "strides": geometry.strides,
            "dilations": geometry.dilations,
        }
        if geometry.auto_pad in ("NOTSET", ""):
            attributes["pads"] = geometry.pads
        else:
            attributes["auto_pad"] = geometry.auto_pad
        if geometry.op == "ConvTranspose":
            attributes["output_padding"] = geometry.output_padding
            W = W.swapaxes(1, 2).reshape(g * c, m, *geometry.kernel)
        else:
            W = W.reshape(g * m, c, *geometry.kernel)
        return self.node(geometry.op, [x, self.constant(W, part)], part, attributes)

    def node(
        self,
        op: str,
        inputs: list[ir.Value | None],
        part: str,
        attributes: dict[str, int | str | tuple[int, ...]] | None = None,
    ) -> ir.Value:
        """One more node; returns its output."""
        name = self._fresh(f"{self._site}/{part}")
        made = ir.node(
            op, inputs, attributes or {}, name=name, metadata_props=dict(self._provenance)
        )
        made.outputs[0].name = name
        made.outputs[0].dtype = self._dtype
        self.nodes.append(made)
        return made.outputs[0]

    def constant(self, array: Weights, part: str) -> ir.Value:
        """A new initialiser in the layer's element type."""
        return self._initializer(array.astype(self._dtype.numpy(), copy=False), part, "weight")

    def reshape(self, x: ir.Value, sizes: list[int], part: str) -> ir.Value:
        """A Reshape to `sizes` (0 keeps an axis, -1 takes the rest)."""
        target = self._initializer(np.array(sizes, np.int64), part, "shape")
        return self.node("Reshape", [x, target], part)

    def _product(self, x: ir.Value, W: Weights, part: str, geometry: Geometry) -> ir.Value:
        g, m, c = W.shape
        if g == 1:
            matrix = (W[0] if geometry.weight_is_left else W[0].T).reshape(
                *geometry.lead, *((m, c) if geometry.weight_is_left else (c, m))
            )
            operands = [x, self.constant(matrix, part)]
            if geometry.weight_is_left:
                operands.reverse()
            return self.node("MatMul", [*operands], part)
        rank = geometry.input_rank
        assert rank is not None and rank >= 2, (
            "Blocks.kernels refuses products of unknown rank"
        )
        if geometry.weight_is_left:
            kept = [0] * (rank - 2)
            wide = self.reshape(x, [*kept, g, c, -1], f"{part}.split")
            y = self.node("MatMul", [self.constant(W, part), wide], part)
            return self.reshape(y, [*kept, g * m, -1], f"{part}.join")
        kept = [0] * (rank - 1)
        wide = self.reshape(x, [*kept, g, 1, c], f"{part}.split")
        y = self.node("MatMul", [wide, self.constant(W.swapaxes(1, 2), part)], part)
        return self.reshape(y, [*kept, g * m], f"{part}.join")

    def _initializer(self, array: npt.NDArray[Any], part: str, kind: str) -> ir.Value:
        known = self._shared.get(f"{part}.{kind}")
        if known is not None and known.const_value is not None:
            held = known.const_value.numpy()
            if held.dtype == array.dtype and np.array_equal(held, array):
                return known
        name = self._fresh(f"{self._site}/{part}.{kind}")
        tensor: ir.TensorProtocol = ir.Tensor(np.ascontiguousarray(array), name=name)
        value = ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.initializers.append(value)
        self._shared[f"{part}.{kind}"] = value
        return value

    def _fresh(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name
