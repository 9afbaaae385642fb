"""Int8 plans: the layers that a target runs in int8, said by a person or all of them."""

from collections.abc import Sequence
from dataclasses import replace

from ...device_profiles.errors import PlanError, UsageError
from ...device_profiles.profile import DeviceProfile
from ...passes.activations.target import runs_int8, target_runs_int8
from ...passes.forms import Form, Int8
from ...passes.plan import Plan
from ...passes.sites import Site
from ..options import CompileOptions
from .planned import Planned

_LEAST_OUTPUTS = 9
_LEAST_MACS = 30_000


def is_int8(form: Form) -> bool:
    """Whether a form rounds what its layer reads."""
    return isinstance(form, Int8)


def int8_sites(plan: Plan) -> tuple[str, ...]:
    """Names of the sites that run in int8."""
    return tuple(name for name, form in plan.forms.items() if is_int8(form))


def where_int8_runs(
    asked: Plan,
    plan: Plan,
    sites: Sequence[Site],
    profile: DeviceProfile,
    options: CompileOptions,
) -> tuple[Plan, dict[str, str]]:
    """The plan with int8 only where the target runs it, and why other layers stay dense.

    Args:
        asked: with what was said by name, and by patterns.
        plan: the same, by layers.
        sites: of the model.
        profile: the target.
        options: as resolved.

    Raises:
        PlanError: a layer that was named cannot run in int8 there, or none of those that
            patterns mean can.
        UsageError: there are no inputs to see ranges on.
    """
    wanted = [site for site in sites if is_int8(plan.form(site.name))]
    if not wanted:
        return plan, {}
    refused = {
        site.name: f"no int8: {reason}"
        for site in wanted
        if (reason := runs_int8(profile, site)) is not None
    }
    for name, reason in refused.items():
        if name in asked.forms:
            raise PlanError(reason, where=f"layer {name!r}", hint="choose another form")
    if len(refused) == len(wanted):
        name, reason = next(iter(refused.items()))
        raise PlanError(
            f"int8 runs in none of the {len(wanted)} layers it is for: {reason}",
            where=f"layer {name!r}",
            hint=f"choose another form for {profile.name}",
        )
    check_calibrated(options)
    forms = {name: form for name, form in plan.forms.items() if name not in refused}
    return replace(plan, forms=forms), refused


def check_calibrated(options: CompileOptions) -> None:
    """Refuses int8 where no ranges can be seen.

    Raises:
        UsageError: there is no --calib.
    """
    if options.calib is None:
        raise UsageError(
            "int8 rounds what layers read, in ranges that it has to see on sample inputs",
            where="int8",
            hint="add --calib FILE.npz",
        )


def int8_planned(
    sites: Sequence[Site], profile: DeviceProfile, options: CompileOptions
) -> Planned:
    """The plan of `--recipe int8`: every layer that the target runs faster in int8.

    Raises:
        PlanError: the target runs nothing in int8.
        UsageError: there are no inputs to see ranges on.
    """
    reason = target_runs_int8(profile)
    if reason is not None:
        raise PlanError(reason, where="--recipe int8", hint="choose another recipe")
    check_calibrated(options)
    reasons = {
        site.name: found
        for site in sites
        if (found := runs_int8(profile, site) or gains_nothing(profile, site)) is not None
    }
    forms: dict[str, Form] = {site.name: Int8() for site in sites if site.name not in reasons}
    for site in sites:  # a weight that two layers share has one form
        if any(other in reasons for other in site.shares) and site.name in forms:
            del forms[site.name]
            reasons[site.name] = "a layer that shares its weight has no int8"
    return Planned(Plan(forms), reasons)


def gains_nothing(profile: DeviceProfile, site: Site) -> str | None:
    """Why a layer would be no faster in int8; None where it can be.

    Measured kernel by kernel with ONNX Runtime 1.31.1 on AVX512-VNNI: depthwise convolutions
    0.5 to 1.1 times as fast as in float, 8 outputs 0.6 to 0.8, under 30,000 products 0.7.
    """
    if profile.runtime != "onnxruntime" or site.op != "Conv":
        return None  # a small product costs less than to widen what it reads
    _, m, c, *_ = site.shape
    if site.shape[0] > 1 and c == 1:
        return "no int8: 8-bit depthwise convolutions are no faster than float ones"
    if m < _LEAST_OUTPUTS:
        return f"no int8: {m} outputs do not fill an 8-bit kernel"
    if site.macs is not None and site.macs < _LEAST_MACS:
        return f"no int8: {site.macs:,} multiply-adds are not worth the rounding of its input"
    return None
