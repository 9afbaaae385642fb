"""Counts: bits, additions and multiplications of a net as LC part V counts them (appendix B).

A count is what a format would take, not what a file holds nor what a device does: file bytes
and times are measured beside it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from .forms import Cost, Term
from .model import Model
from .sites import Site

REFERENCE_BITS = 32
"""LC part V, eq. (7): a float of the reference, and whatever is left as it is (B.1.4).

A layer whose weights the file holds in another type counts those bits instead.
"""


@dataclass(frozen=True)
class Counts:
    """What a layer or a net takes before and after compression.

    Args:
        parameters: floats before.
        reference_bits, bits: before and after.
        reference_ops: additions, and as many multiplications, before (appendix B.2.1).
        adds, mults: after.
        is_complete: whether the number of output positions of every layer is known; where it
            is not, the layer is missing from the operations on both sides.
    """

    parameters: int
    reference_bits: int
    bits: int
    reference_ops: int = 0
    adds: int = 0
    mults: int = 0
    is_complete: bool = True

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.parameters + other.parameters,
            self.reference_bits + other.reference_bits,
            self.bits + other.bits,
            self.reference_ops + other.reference_ops,
            self.adds + other.adds,
            self.mults + other.mults,
            self.is_complete and other.is_complete,
        )

    @property
    def rho_s(self) -> float | None:
        """Reduction of storage, eq. (6); None where nothing is stored."""
        return ratio(self.reference_bits, self.bits)

    @property
    def rho_add(self) -> float | None:
        """Reduction of additions, eq. (12)."""
        return ratio(self.reference_ops, self.adds)

    @property
    def rho_mult(self) -> float | None:
        """Reduction of multiplications, eq. (13)."""
        return ratio(self.reference_ops, self.mults)

    @property
    def bits_per_parameter(self) -> float:
        """All-in bits of a float parameter: everything stored over everything there was."""
        return self.bits / self.parameters if self.parameters else 0.0


NOTHING = Counts(0, 0, 0)


def ratio(reference: float, compressed: float) -> float | None:
    """Reference over compressed; 1 where both are 0, None where it would be infinite.

    Example:
        >>> ratio(64, 16), ratio(0, 0), ratio(64, 0)
        (4.0, 1.0, None)
    """
    if compressed == 0:
        return 1.0 if reference == 0 else None
    return reference / compressed


def layer_counts(site: Site, cost: Cost | None = None) -> Counts:
    """The counts of one layer's weight; as it is where there is no cost.

    Args:
        site: the layer. A weight that stays for another reader is counted twice.
        cost: of the term in its place: bits, and operations of one output position.
    """
    n = site.weights
    reference = int(8 * site.dtype.itemsize) * n
    bits = reference if cost is None else cost.bits + (reference if site.is_kept else 0)
    M = site.geometry.as_kernel(site.shape[1], site.shape[2], site.shape[0]).positions
    if M is None:
        return Counts(n, reference, bits, is_complete=False)
    adds, mults = (n, n) if cost is None else (cost.adds, cost.mults)
    return Counts(n, reference, bits, n * M, adds * M, mults * M)


def uncompressed(count: int) -> Counts:
    """`count` floats that stay: biases, norms, tables (appendix B.1.4)."""
    return Counts(count, REFERENCE_BITS * count, REFERENCE_BITS * count)


def net_counts(
    model: Model, sites: Iterable[Site], terms: Mapping[str, Term | Cost]
) -> Counts:
    """The counts of a net: every layer, and every other float at 32 bits.

    A weight that several layers read is stored once and applied by each of them.

    Args:
        model: normalised, as the sites were found in it.
        sites: every site of the model.
        terms: the term, or its cost, of every changed site.
    """
    total, weights = NOTHING, dict[str, int]()
    for site in sites:
        term = terms.get(site.name)
        cost = term if isinstance(term, Cost) or term is None else term.cost()
        counts = layer_counts(site, cost)
        if site.weight_name in weights:
            counts = Counts(
                0, 0, 0, counts.reference_ops, counts.adds, counts.mults, counts.is_complete
            )
        weights[site.weight_name] = site.weights
        total += counts
    return total + uncompressed(float_count(model) - sum(weights.values()))


def float_count(model: Model) -> int:
    """Number of float constants of a model: initialisers and Constant nodes, bodies too."""
    graph = model.graph_model.graph
    count = 0
    for scope in (graph, *graph.subgraphs()):
        for value in scope.initializers.values():
            tensor = value.const_value
            count += tensor.size if tensor is not None and _is_float(tensor) else 0
    for node in graph.all_nodes():
        if node.op_type == "Constant" and node.domain == "":
            tensor = ir.convenience.get_const_tensor(node.outputs[0])
            count += tensor.size if tensor is not None and _is_float(tensor) else 0
    return count


def _is_float(tensor: ir.TensorProtocol) -> bool:
    return tensor.dtype.is_floating_point()
