"""Whether generated rows help, by the rule of decision 0020, in one sentence."""

from collections.abc import Sequence
from dataclasses import dataclass

from drllama.stats.significance import holm
from drllama.types import ArmFinding, Conclusion, Effect, Estimate, Finding

_METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1"}


def conclude(
    effects: Sequence[Effect], *, baselines: Sequence[str], level: float, metric: str = "accuracy"
) -> Conclusion:
    """Return what may be said of the arms that these effects are about.

    ``baselines`` are whom an arm must beat to help: first the arm without generated rows, then its controls. An arm
    hurts where it is worse than the first. With one seed nothing is found.

    Raises:
        ValueError: an arm lacks its effect against one of the baselines.
    """
    arms = tuple(dict.fromkeys(one.arm for one in effects))
    by_pair = {(one.arm, one.baseline): one for one in effects}
    if missing := [(arm, name) for arm in arms for name in baselines if (arm, name) not in by_pair]:
        raise ValueError(f"conclude: no effect of {missing[0][0]} against {missing[0][1]}")
    if not arms or not baselines:
        raise ValueError("conclude: no effects, or nobody to beat")
    found = [_Held(arm=arm, effects=tuple(by_pair[arm, name] for name in baselines), metric=metric) for arm in arms]
    p_helps, p_hurts = holm([one.p_helps for one in found]), holm([one.p_hurts for one in found])
    findings = tuple(
        one.finding(helps, hurts, level=level) for one, helps, hurts in zip(found, p_helps, p_hurts, strict=True)
    )
    among = {one.finding for one in findings}
    finding = next((one for one in (Finding.HELPS, Finding.HURTS) if one in among), Finding.NO_EVIDENCE)
    return Conclusion(
        finding=finding,
        metric=metric,
        level=level,
        baselines=tuple(baselines),
        arms=findings,
        sentence=_sentence(found, findings, level=level),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    """One arm held against all baselines."""

    arm: str
    effects: tuple[Effect, ...]
    metric: str

    @property
    def p_helps(self) -> float:
        """Against the baseline that is hardest to tell from it; an arm must beat them all, so no p-value is raised."""
        return max(self._p_value(one, better=True) for one in self.effects)

    @property
    def p_hurts(self) -> float:
        return self._p_value(self.effects[0], better=False)

    def _p_value(self, effect: Effect, *, better: bool) -> float:
        difference = effect.differences[self.metric]
        told = difference.estimate.value > 0 if better else difference.estimate.value < 0
        return difference.p_value if told and difference.seed_error is not None else 1.0

    def finding(self, p_helps: float, p_hurts: float, *, level: float) -> ArmFinding:
        alpha = 1 - level
        finding = Finding.HELPS if p_helps < alpha else Finding.HURTS if p_hurts < alpha else Finding.NO_EVIDENCE
        shown = {Finding.HELPS: p_helps, Finding.HURTS: p_hurts, Finding.NO_EVIDENCE: 1.0}
        return ArmFinding(
            arm=self.arm,
            finding=finding,
            p_adjusted=shown[finding],
            detectable=max(one.differences[self.metric].detectable for one in self.effects),
        )


def _sentence(found: Sequence[_Held], findings: Sequence[ArmFinding], *, level: float) -> str:
    metric = _METRICS.get(found[0].metric, found[0].metric)
    effect = found[0].effects[0]
    looked = f"{_counted(len(effect.seeds), 'seed')}, {_counted(effect.num_items, 'question')}"
    if len(effect.seeds) == 1:
        return (
            f"No evidence either way: one seed can't tell what generated rows change in {metric} from the luck of "
            f"training ({looked})."
        )
    parts = []
    for finding, verb in ((Finding.HELPS, "helps"), (Finding.HURTS, "hurts")):
        told = [(arm, said) for arm, said in zip(found, findings, strict=True) if said.finding is finding]
        if told:
            parts.append(f"{verb}: " + "; ".join(_arm_told(arm, said) for arm, said in told))
    if parts:
        left = _uncontrolled(found, findings) or _half_found(found, findings, level)
        return f"Generated data {', and also '.join(parts)} ({metric}, {looked}){left}."
    detectable = 100 * max(one.detectable for one in findings)
    shown = f"an effect on {metric} above {detectable:.1f} points would have shown"
    return f"No evidence either way: {shown} ({looked}){_half_found(found, findings, level)}."


def _half_found(found: Sequence[_Held], findings: Sequence[ArmFinding], level: float) -> str:
    """Return which arms beat the one without extra rows but not every control: rows helped, but any would have."""
    told = []
    for one, said in zip(found, findings, strict=True):
        plain, *controls = (effect.differences[one.metric] for effect in one.effects)
        beats_plain = plain.estimate.value > 0 and plain.p_adjusted < 1 - level
        if beats_plain and controls and said.finding is not Finding.HELPS:
            names = " and ".join(f"'{effect.baseline}'" for effect in one.effects[1:])
            told.append(
                f"; '{one.arm}' beats '{one.effects[0].baseline}' by {_shown(plain.estimate)}, but isn't shown to beat "
                f"{names}, whose extra rows need no teacher"
            )
    return "".join(told)


def _uncontrolled(found: Sequence[_Held], findings: Sequence[ArmFinding]) -> str:
    """Return what a gain leaves open where nothing but the arm without extra rows had to be beaten."""
    if len(found[0].effects) > 1 or all(one.finding is not Finding.HELPS for one in findings):
        return ""
    return "; copies of real rows weren't tried and may do as much: add duplicate-real to augment.arms"


def _arm_told(arm: _Held, said: ArmFinding) -> str:
    against = arm.effects if said.finding is Finding.HELPS else arm.effects[:1]
    told = " and ".join(f"{_shown(one.differences[arm.metric].estimate)} against '{one.baseline}'" for one in against)
    return f"'{arm.arm}' {told}, p = {said.p_adjusted:.2g} after Holm"


def _shown(estimate: Estimate) -> str:
    low, high = 100 * estimate.low, 100 * estimate.high
    return f"{100 * estimate.value:+.1f} points [{low:+.1f}, {high:+.1f}]"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
