"""Costs: what every layer, and what could replace it, is predicted to take on a target."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..device_profiles.cost.cpu import is_blocked
from ..device_profiles.cost.fused import FusedKernel
from ..device_profiles.cost.int8 import with_int8
from ..device_profiles.cost.measured import key_of
from ..device_profiles.cost.model import Analytic, CostModel, Prediction, total
from ..device_profiles.host import channel_block
from ..device_profiles.profile import DeviceProfile
from ..passes.forms import Dense, Form
from ..passes.forms.codes.int8 import Int8
from ..passes.fusion import Shapes, alone, fused_kernels, reordered, replacement, uncounted
from ..passes.model import Model
from ..passes.plan import Plan
from ..passes.removal.left import NOTHING_GONE, Left
from ..passes.sites import Site
from ..runtime.microbench_cases import RUN
from .allocation.survey import Survey
from .as_given import AsGiven
from .outcome import Predicted

FLOAT_BYTES = 4
ROUNDING_SECONDS, ROUNDING_SECONDS_EACH = 8e-6, 0.5e-9
"""Time of the launches around a lone int8 layer, and of each number that they move.

Rounding, widening and two changes of layout: vggs and lenet5 with int8 layers took 14 us more
than their kernels were predicted to (ONNX Runtime 1.31, one thread of an AMD EPYC)."""


@dataclass(frozen=True)
class Costs:
    """The predicted time of a model on a target, launch by launch.

    Args:
        model: the cost model.
        launches: of the whole net, normalised.
        by_site: the launch of each site that has one.
        block: channels of a block of the runtime's own layout, 1 where it has none.
        basis: what the cost model rests on, for people.
        unseen: nodes whose time is not in it.
        rounds_apart: whether the runtime rounds what an int8 layer reads, and widens what it
            gives, in launches of their own.
        given: launches of the net as it was given; () where they are the same.
        left: the channels that are left of the net, where it lost some.
    """

    model: CostModel
    launches: tuple[FusedKernel, ...]
    by_site: Mapping[str, FusedKernel]
    block: int
    basis: str
    unseen: tuple[str, ...] = ()
    rounds_apart: bool = False
    given: tuple[FusedKernel, ...] = ()
    left: Left = NOTHING_GONE

    def without(self, left: Left) -> "Costs":
        """The costs of the same net once channels are gone."""
        if not left:
            return self
        made = {
            id(kernel): left.before(kernel)
            if kernel.linear is None and kernel.name in self.by_site
            else left.launch(kernel)
            for kernel in self.launches
        }
        return replace(
            self,
            launches=tuple(made[id(kernel)] for kernel in self.launches),
            by_site={name: made[id(kernel)] for name, kernel in self.by_site.items()},
            given=self.given or self.launches,
            left=left,
        )

    @property
    def reference(self) -> Prediction:
        """The time of the net as it was given: what speed-ups are relative to."""
        return total(self.model.predict(kernel) for kernel in self.given or self.launches)

    @property
    def rewritten(self) -> Prediction:
        """The time of the net once it is normalised, with every layer dense."""
        return total(self.model.predict(kernel) for kernel in self.launches)

    @property
    def rest(self) -> Prediction:
        """The time of everything but the sites."""
        sites = set(map(id, self.by_site.values()))
        return total(self.model.predict(k) for k in self.launches if id(k) not in sites)

    def of(self, site: Site, form: Form | None = None) -> Prediction | None:
        """The time of a site in a form, dense where None; None where it is not a launch."""
        made = self.launched(site, form)
        if not made:
            return None
        found = total(self.model.predict(kernel) for kernel in made)
        return replace(found, seconds=found.seconds + self.around(site, form))

    def around(self, site: Site, form: Form | None = None) -> float:
        """Seconds around an int8 layer whose neighbours are not: what it can cost at most."""
        if not self.rounds_apart or not isinstance(form, Int8):
            return 0.0
        launch = self.by_site[site.name]
        return ROUNDING_SECONDS + ROUNDING_SECONDS_EACH * (launch.read + launch.written)

    def launched(self, site: Site, form: Form | None = None) -> tuple[FusedKernel, ...]:
        """What runs for a site in a form, dense where None; nothing where it is no launch."""
        launch = self.by_site.get(site.name)
        if launch is None:
            return ()
        if form is None or isinstance(form, Dense):
            return (launch,)
        kernels = self.left.kernels(site.name, form.kernels(site.shape, site.geometry))
        made = replacement(launch, kernels)
        if self.block > 1 and is_blocked(launch, self.block):
            made = reordered(made, self.block)
        if site.name in self.left.gathered:
            size = alone(kernels[0]).read
            made = [FusedKernel("Gather", None, size, size, name=site.name), *made]
        return tuple(made)


def costs(
    model: Model,
    shapes: Shapes,
    sites: Sequence[Site],
    profile: DeviceProfile,
    *,
    given: AsGiven | None = None,
    threads: int = 1,
    measure: bool = True,
    on_case: Callable[[int, int], None] | None = None,
) -> Costs | None:
    """The costs of a model, or None where its target has no cost model.

    Args:
        model: normalised.
        shapes: size of every value.
        sites: of the model.
        profile: the target.
        given: the model that times are relative to, where it is not `model`.
        threads: threads inside an operator, where that is this machine.
        measure: whether this machine may be calibrated for it now.
        on_case: called with (done, of how many) while it is.
    """
    if profile.is_local:
        from .calibrate import calibrated

        block = channel_block()[0]
        launches = fused_kernels(model, shapes, profile.runtime, sites, block=block)
        before = _launches_of(given, profile, block)
        machine = calibrated(threads, measure=measure, on_case=on_case)
        if machine is None:
            return None
        run = FusedKernel(RUN, None, 0, 0, name=RUN)
        launches.append(run)
        before += [run] if before else []
        size = FLOAT_BYTES * sum(k.linear.weights for k in launches if k.linear is not None)
        found: CostModel = machine.for_weights(size)
        basis = f"microbenchmarks of this machine ({machine.digest[:12]}), {threads} thread(s)"
    else:
        precision = next((p for p in profile.precisions if p in profile.cost), None)
        if precision is None:
            return None
        block = 1
        launches = fused_kernels(model, shapes, profile.runtime, sites)
        before = _launches_of(given, profile, block)
        found, basis = (
            Analytic(profile.cost[precision]),
            f"{profile.name} profile, {precision}",
        )
    found = with_int8(found, profile)
    names = {site.name for site in sites}
    by_site = {k.name: k for k in launches if k.name in names and k.linear is not None}
    unseen = tuple(uncounted(model, shapes))
    is_apart = profile.runtime == "onnxruntime"
    return Costs(
        found, tuple(launches), by_site, block, basis, unseen, is_apart, tuple(before)
    )


def _launches_of(
    given: AsGiven | None, profile: DeviceProfile, block: int
) -> list[FusedKernel]:
    if given is None:
        return []
    return fused_kernels(given.model, given.shapes, profile.runtime, given.sites, block=block)


def timed(surveys: Sequence[Survey], sites: Sequence[Site], costs: Costs) -> list[Survey]:
    """The surveys with the predicted time of every candidate, of all sites that share it.

    Where nothing predicts a site the survey stays as it is.
    """
    by_name = {site.name: site for site in sites}
    made: list[Survey] = []
    known: dict[tuple[object, ...], Prediction | None] = {}

    def seconds(site: Site, form: Form) -> float | None:
        launch = costs.by_site.get(site.name)
        # layers of one shape are predicted once
        key = (form, site.shape, site.geometry, launch and key_of(launch))
        if key not in known:
            known[key] = costs.of(site, form)
        found = known[key]
        return None if found is None else found.seconds

    for survey in surveys:
        users = [by_name[name] for name in (survey.site.name, *survey.site.shares)]
        times = [[seconds(user, form) for form in survey.forms] for user in users]
        if any(t is None for user in times for t in user):
            made.append(survey)
            continue
        total_times = np.array(times, dtype=np.float64).sum(axis=0)
        made.append(replace(survey, seconds=total_times))
    return made


def predicted(
    costs: Costs, sites: Sequence[Site], plan: Plan, left: Left = NOTHING_GONE
) -> Predicted:
    """The latency of the net before and after a plan.

    Args:
        costs: of the net before.
        sites: of the model.
        plan: form of every site.
        left: the channels that are left after it.
    """
    now = costs.without(left)
    after = [now.of(site, plan.form(site.name)) for site in sites]
    whole = total([now.rest, *(part for part in after if part is not None)])
    classes = tuple(sorted({*costs.reference.extrapolated, *whole.extrapolated}))
    return Predicted(
        costs.reference.seconds * 1e3,
        whole.seconds * 1e3,
        "extrapolated" if classes else whole.tier,
        classes,
        costs.basis,
        costs.unseen,
        costs.rewritten.seconds * 1e3,
    )
