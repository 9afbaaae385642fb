"""What a device cannot take of a legalised model."""

from collections.abc import Sequence

from ...device_profiles.profile import DeviceProfile
from ..check import Finding, check
from .legalise import Legalised


def remaining(
    legalised: Legalised, profile: DeviceProfile, unfit: Sequence[Finding] = ()
) -> list[Finding]:
    """What legalisation could not change: each node once.

    A node that it refused is told in its words: it knows why there is no rewrite. So is a
    number that `narrow` found `unfit`: it names the node that reads it.
    """
    refused = {
        (r.node, r.op): Finding(r.node, r.op, r.reason, r.remedy) for r in legalised.refused
    }
    others = [
        f
        for f in check(legalised.model, profile)
        if (f.node, f.op) not in refused
        and not (unfit and f.op in ("initializer", "Constant") and "int64" in f.reason)
    ]
    return [*unfit, *refused.values(), *others]
