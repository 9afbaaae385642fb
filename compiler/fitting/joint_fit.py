"""JointFit: corrections of the whole net become every layer's own number before the fits."""

from collections.abc import Callable, Mapping, Sequence

from ...passes.forms import Form, Metric
from ...passes.forms.sparse.joint import net_part, shared_forms
from ...passes.plan import Plan
from ...passes.sites import Site


def with_shares(
    groups: Sequence[Sequence[Site]], plan: Plan, metric: Callable[[Sequence[Site]], Metric]
) -> Mapping[str, Form]:
    """The form of every group of sites, a kappa of the net shared out (LC part V, 5.1).

    Layers whose forms say the same `prune(kappa=…, of=net)` share that kappa, whatever else
    their forms are; a share of 1 % is of all the weights of those layers together.

    Args:
        groups: sites that share a weight, group by group; the weight counts once.
        plan: form of every site.
        metric: of a group; asked for those alone that share a kappa.

    Returns:
        Form by the name of the first site of each group.

    Raises:
        PlanError: a kappa of the net stands where it cannot be shared out.
    """
    forms = {group[0].name: plan.form(group[0].name) for group in groups}
    users = {group[0].name: group for group in groups}
    together: dict[tuple[float, str], list[str]] = {}
    for name, form in forms.items():
        part = net_part(form)
        if part is not None:
            together.setdefault((part.kappa, part.by), []).append(name)
    for (kappa, _), names in together.items():
        names.sort()
        weights = {name: users[name][0].W() for name in names}
        metrics = {name: metric(users[name]) for name in names}
        forms |= shared_forms(weights, {n: forms[n] for n in names}, kappa, metrics)
    return forms
