"""A report's remedy as Python that runs as it stands, with ``model`` at hand."""

from __future__ import annotations

from initdiag.diagnosing.advice import Advice
from initdiag.diagnosing.report import Report

__all__ = ["code_of"]

_METHODS = {
    "nn.init.kaiming_normal_": "he_normal",
    "nn.init.orthogonal_": "orthogonal",
    "nn.init.xavier_normal_": "he_normal",
}
"""The method of `initdiag.repair` whose weights have the law of a function of PyTorch;
it sets the gain by the gate.
"""

_LOOP = """\
# It stands for this, and then sets each layer's gain to 1:
# for module in model.modules():
#     if isinstance(module, torch.nn.Linear):
#         torch.{weight}
#         if module.bias is not None:
#             torch.nn.init.zeros_(module.bias)
"""


def code_of(report: Report) -> str:
    """Return the remedy's code: the input's scaling where that is the cause, else the
    first advice that is a matter of weights or the learning rate. Empty where there is
    none: a healthy network, or another shape.
    """
    if not report.verdict.is_at_risk:
        return ""
    probe = report.probe
    if report.cause == "input scale" and probe is not None:
        return f"x = (x - {probe.input_mean:.6g}) / {probe.input_std:.6g}\n"
    found = next((one for one in report.advice if _is_of_weights(one)), None)
    if found is not None:
        return _of_weights(found)
    if report.cause == "gain" and probe is not None and probe.has_sines:
        return "import initdiag\n\ninitdiag.repair(model)\n"
    return ""


def _is_of_weights(advice: Advice) -> bool:
    return bool(_initialiser(advice)) and "#" not in advice.code and "widths" not in advice.code


def _initialiser(advice: Advice) -> str:
    """Return the advice's call that draws a weight; empty without one."""
    calls = (part.strip() for part in advice.code.split(";"))
    return next((call for call in calls if call.partition("(")[0] in _METHODS), "")


def _of_weights(advice: Advice) -> str:
    call = _initialiser(advice)
    rate = next((part for part in advice.code.split(";") if part.strip().startswith("lr =")), "")
    method = _METHODS[call.partition("(")[0]]
    lines = f'import initdiag\n\ninitdiag.repair(model, "{method}")\n'
    if rate:
        lines += f"{rate.strip()}\n"
    return lines + _LOOP.format(weight=call.replace("(w", "(module.weight", 1))
