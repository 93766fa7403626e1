"""The one catalogue of findings: what each code means, why it happens, how to mend it.

A finding is made by its kind, e.g. ``ZERO_WEIGHTS.at("2.weight", message, remedy)``.
`initdiag explain`, the documentation's pages, the SARIF rules and the JSON schema of a
report are made from the same catalogue.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterator
from dataclasses import dataclass

from initdiag.errors import InvalidInput, explain

__all__ = ["CATALOGUE", "Finding", "Kind", "Severity", "kind_of"]


class Severity(enum.StrEnum):
    """How much a finding matters, the worst first."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    @property
    def rank(self) -> int:
        """0 for an error, 1 for a warning, 2 for a note."""
        return list(Severity).index(self)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found in one network.

    Attributes
    ----------
    code : str
        Stable for ever; `kind_of` tells what it means.
    severity : Severity
        An error decides the verdict.
    layer : str or None
        The path of the layer it was found in; None for the whole network.
    message : str
        What was found, with its numbers.
    remedy : str
        What to do.
    """

    code: str
    severity: Severity
    layer: str | None
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of finding. A code keeps its meaning for ever.

    Attributes
    ----------
    code, name : str
        ``"IND012"`` and ``"inputs-collapse"``.
    severity : Severity
        The usual one; a milder or graver case may state its own.
    meaning, why, mend : str
        What it means, why it happens, and how to mend it, in whole sentences.
    """

    code: str
    name: str
    severity: Severity
    meaning: str
    why: str
    mend: str

    def at(
        self, layer: str | None, message: str, remedy: str, severity: Severity | None = None
    ) -> Finding:
        """Return a finding of this kind in a layer, or in the whole network (None)."""
        return Finding(self.code, severity or self.severity, layer, message, remedy)

    def sections(self) -> Iterator[tuple[str, str]]:
        """Yield the headings of the finding's page and the text under each."""
        yield "What it means", self.meaning
        yield "Why it happens", self.why
        yield "How to fix it", self.mend

    def to_markdown(self) -> str:
        """Return the finding's page for the documentation."""
        parts = [f"# {self.code}: {self.name}", f"Usual severity: {self.severity}."]
        for heading, text in self.sections():
            parts += [f"## {heading}", text]
        return "\n\n".join(parts) + "\n"


_ERROR, _WARNING, _NOTE = Severity

NOT_JUDGED = Kind(
    "IND000",
    "not-judged",
    _WARNING,
    "The network was not judged: what is known of it does not tell how it will train. Not "
    "judged is never a pass.",
    "The theory covers plain chains of linear layers, and simulates much of what goes "
    "beyond. Random signs can measure a module whose weights are symmetric. Where neither "
    "is possible, and no initialiser is known that could draw the weights afresh, there are "
    "no numbers to judge.",
    "Pass a function that builds the network in place of the module: its weights can then "
    "be drawn afresh, whatever they are. Or judge a part of the network with `module=`.",
)
VANISHING = Kind(
    "IND001",
    "vanishing-gradient",
    _ERROR,
    "The gradient vanishes on its way through the layers: those that it reaches last hardly learn.",
    "Each layer multiplies the gradient's mean square by the square of its gain: 1/6 for "
    "PyTorch's default initialisation with ReLU, so that thirty layers lose a factor of "
    "10^11 in size. Saturated gates (sigmoid, tanh at large inputs) do the same.",
    "Make each layer's gain 1: He initialisation for ReLU, Xavier for tanh, orthogonal "
    "weights for either. Fewer layers or skip connections shorten the way. "
    "`initdiag.repair(model)` rescales the weights that are there.",
)
EXPLODING = Kind(
    "IND002",
    "exploding-gradient",
    _ERROR,
    "The gradient explodes on its way through the layers, so that the first steps of "
    "training overshoot; or a value overflows before there is a gradient.",
    "The layers' gains are above 1 and multiply: weights that are drawn too large, residual sums "
    "without normalisation, products of "
    "branches.",
    "Make each layer's gain 1: He or orthogonal initialisation. Scale the branches of "
    "residual sums by one over the root of their number. `initdiag.repair(model)` rescales "
    "the weights that are there.",
)
UNSTABLE = Kind(
    "IND003",
    "unstable-gradient",
    _ERROR,
    "The gradient's size differs too much from one initialisation to the next: whether "
    "training starts is a matter of luck.",
    "Each random layer of width n adds about 5/n to the variance of the log of the "
    "gradient's square (for ReLU), so that the sum of 1/width over the layers is what "
    "counts (Hanin and Nica 2018, arXiv 1812.05994).",
    "Wider layers, fewer layers, or orthogonal weights, which fluctuate less.",
)
DEAD = Kind(
    "IND004",
    "dead-network",
    _ERROR,
    "In most initialisations, or in all, the gradient is exactly zero.",
    "A ReLU layer of n units passes nothing with probability 2^-n, and one such layer is "
    "enough: layers of a few units die often. An input of zeros, or a bias that closes "
    "every gate, does the same.",
    "Widen the narrowest ReLU layers, or use leaky ReLU. Check the input that the network "
    "was diagnosed on.",
)
REFUTED = Kind(
    "IND005",
    "theory-contradicted",
    _WARNING,
    "Prediction and measurement disagree by more than their errors explain. The network is "
    "then judged by its measurement, not by the prediction.",
    "Something about the network is not as it was read: a gain or an activation other than "
    "the trace took it for, weights that are not independent (trained, tied, low rank), "
    "gates that are not open half of the time, or inputs that are exactly zero.",
    "Read the part that is named. If the weights are a trained checkpoint, diagnose the "
    "network as it is built. A disagreement on an honest network is worth a bug report.",
)
NOT_COVERED = Kind(
    "IND006",
    "not-covered",
    _NOTE,
    "A part of the network is not covered by the theory, so that no exact statement is made "
    "about it.",
    "The exact law holds for chains of linear layers and activations. Normalisation, "
    "attention, residual sums, shared weights and the like are simulated through the "
    "module's own forward where that can be done, and measured otherwise.",
    "You need not do anything if the verdict rests on a simulation or a measurement. To have "
    "the exact law of a chain inside a larger model, name it with `module=`.",
)
ZERO_WEIGHTS = Kind(
    "IND007",
    "zero-weights",
    _ERROR,
    "Every weight of a hidden layer is zero: no gradient passes it, and its units stay equal.",
    "The layer was initialised with zeros, or its initialisation was left out. Zeros are a "
    "usual start for an output layer and for the last layer of a residual branch, where "
    "the gradient has another way; they are not for a layer that every path goes through.",
    "Draw its weights, e.g. by He initialisation.",
)
UNUSED = Kind(
    "IND008",
    "unused-weights",
    _WARNING,
    "The forward pass never reaches these weights, so that they will not train.",
    "A layer was built and is not called, its result is thrown away, or another input "
    "takes the way through it.",
    "Remove the layer, or use it; if it belongs to another path, diagnose that one too.",
)
WEIGHTS_FAIL = Kind(
    "IND009",
    "weights-fail-hypotheses",
    _WARNING,
    "A layer's weights do not look drawn from a symmetric iid or an orthogonal law, which "
    "the theory assumes.",
    "The weights were trained, copied, pruned, or drawn by a law of another kind (skewed, "
    "with rows that depend on one another, with very heavy tails).",
    "A trained checkpoint is not an initialisation: diagnose the network as it is built. Where "
    "a layer is a copy of another (`copy.deepcopy`), initialise each afresh.",
)
NOT_MEASURED = Kind(
    "IND010",
    "not-measured",
    _NOTE,
    "The network could not be measured, or too few draws have a gradient to tell its fluctuation.",
    "Random signs need weights that are symmetric about zero; drawing afresh needs a known "
    "initialiser or a function that builds the network.",
    "Do what the reason says; most often: pass a function that builds the network.",
)
SKEWED_BIAS = Kind(
    "IND011",
    "asymmetric-bias",
    _NOTE,
    "A bias is constant or skewed, so that a ReLU behind it is not open half of the time.",
    "The theory takes gates for fair coins, which symmetric weights and biases make them. A "
    "bias of one sign opens or closes more of them.",
    "Start biases at zero, or draw them symmetrically, for the theory to cover the layer. "
    "Otherwise the verdict rests on a simulation or a measurement.",
)
INPUTS_COLLAPSE = Kind(
    "IND012",
    "inputs-collapse",
    _WARNING,
    "Different inputs become indistinguishable with depth: two inputs at right angles leave "
    "the last hidden layer nearly parallel.",
    "Each ReLU layer shrinks the angle between two inputs, and large biases, or gates that "
    "saturate, do it faster. The gradient may be of a usable size all the same.",
    "Weights of gain 1 with zero biases, fewer layers, or skip connections.",
)
ASSUMED = Kind(
    "IND013",
    "weights-assumed",
    _NOTE,
    "Some weights were assumed, not read, so that no hypothesis about them was tested.",
    "The module lives on the meta device, or the architecture was changed as a what-if.",
    "Give the weights values, e.g. with `to_empty` and `reset_parameters`.",
)
STEP_TOO_LARGE = Kind(
    "IND014",
    "step-too-large",
    _ERROR,
    "The learning rate takes too large a step, for the depth however the weights are drawn, or "
    "for the curvature of the loss on the batch at hand.",
    "The gradient with respect to all weights has one share a layer: a learning rate that "
    "starts ten layers overshoots with forty. Gradient descent leaves a valley where the "
    "learning rate is above two over the loss's largest curvature; Adam moves every weight "
    "by the learning rate, which moves the outputs of a wide or deep network far.",
    "Lower the learning rate, below the number that the finding names; use fewer layers, or "
    "skip connections.",
)
ZERO_START = Kind(
    "IND015",
    "zero-output",
    _NOTE,
    "An output layer, or the last layer of a residual branch, starts at zero: the first "
    "step changes that layer alone, and from then on the others learn, too.",
    "This is a usual start (zero-initialised heads, Fixup, LoRA, DiT). An output layer of "
    "zeros is judged as if its gain were 1; a branch of zeros counts as not there.",
    "Nothing need be done.",
)
SYMMETRY = Kind(
    "IND016",
    "symmetric-units",
    _ERROR,
    "Units of a layer have the same weights, so that they compute the same, get the same "
    "gradient and stay the same for ever: the layer is as wide as its number of different "
    "units.",
    "The weights were set to a constant, or rows or columns were copied. Random weights "
    "are there to break this symmetry.",
    "Draw the weights, e.g. by He initialisation. Zero or constant biases do no harm.",
)
NO_GRADIENT = Kind(
    "IND017",
    "no-gradient",
    _ERROR,
    "No weight gets a gradient, so that nothing can be learnt.",
    "The output does not depend on the parameters: the input is handed through, the result "
    "of the layers is thrown away, or it is detached (`detach`, `no_grad`, `.data`, a "
    "rounding or an argmax on the way).",
    "Look for the place where the output is cut off from the layers.",
)
SHARED_STATE = Kind(
    "IND018",
    "shared-state",
    _NOTE,
    "The module leads to something that can be neither copied nor put back, such as a lock, "
    "a socket or an open file. The forward passes of a diagnosis share it with the module.",
    "A diagnosis runs copies of a module and of everything that it holds, so that the module "
    "itself stays as it is. Objects of the operating system or of C cannot be copied.",
    "Set the attribute aside while the module is looked at, if a forward pass changes it. "
    "`strict=True`, or `--strict`, refuses such a module before anything runs.",
)
CHOSEN = Kind(
    "IND019",
    "chosen-input-and-output",
    _NOTE,
    "The network takes or returns more than one tensor, tokens, or a batch that can be read "
    "in several ways: this is what was perturbed, and what was judged.",
    "The gradient that is judged is that of one output by one input. By default these are "
    "all floating arguments together, or what the first embedding returns for tokens, and "
    "the first floating tensor that forward returns.",
    "Nothing need be done. `input=` names another argument, `output=` another part of what "
    "is returned, `module=` a part of the network.",
)
JACOBIAN_SCALE = Kind(
    "IND020",
    "jacobian-scale",
    _NOTE,
    "The mean squared singular value of the Jacobian is not 1: the network changes the "
    "scale of a perturbation.",
    "The product of the layers' gains is not 1.",
    "Multiply the weights by the factor that is named.",
)
JACOBIAN_SPREAD = Kind(
    "IND021",
    "jacobian-spread",
    _NOTE,
    "The Jacobian's singular values spread over decades: some directions are passed on far "
    "better than others.",
    "Each layer of independent weights spreads them further; gates that close add to it.",
    "Orthogonal weights, wider or fewer layers.",
)
JACOBIAN_RANK = Kind(
    "IND022",
    "jacobian-rank",
    _NOTE,
    "The Jacobian loses rank: some directions of the input are not passed on at all, or not "
    "told from zero in single precision.",
    "A narrow layer passes no more directions than it has open gates; depth makes small "
    "singular values smaller.",
    "Widen the narrowest layers, or use gates that do not close.",
)
JACOBIAN_ISOMETRY = Kind(
    "IND023",
    "jacobian-isometry",
    _NOTE,
    "The Jacobian is far from an isometry: a perturbation is carried by few directions.",
    "The squared singular values vary by more than their mean, which independent layers "
    "bring about with depth.",
    "Orthogonal weights, activations near the identity at zero, fewer layers.",
)
FINITE_WIDTH = Kind(
    "IND024",
    "spectrum-at-finite-width",
    _WARNING,
    "Depth over width makes the limiting spectrum untrustworthy.",
    "The predicted spectrum is the limit of large width; at the widths at hand the second "
    "moment is off.",
    "Measure the singular values: `initdiag.measure_spectrum(model)`.",
)
NO_SPECTRUM = Kind(
    "IND025",
    "no-spectrum",
    _NOTE,
    "The Jacobian's spectrum could not be predicted.",
    "The network is not a chain, or has a layer that free probability does not cover.",
    "Measure the singular values: `initdiag.measure_spectrum(model)`.",
)
INPUT_SCALE = Kind(
    "IND026",
    "input-scale",
    _ERROR,
    "The inputs are of a size or an offset with which training does not start; with mean 0 and "
    "standard deviation 1 what the batch shows would not be in the way.",
    "Raw pixels from 0 to 255, physical units, states of a simulator: the first layer's "
    "gradient grows with the inputs, the curvature with their square, and gates saturate.",
    "Scale the inputs before they enter, with numbers taken from the training set; the finding "
    "names those of the batch.",
)
SATURATED = Kind(
    "IND027",
    "saturated-gates",
    _ERROR,
    "Many values of a bounded activation stand at its flat ends, where its derivative is under "
    "1 % of its largest: next to no gradient passes them.",
    "What comes into the activation is too large for it: weights of too large a gain, inputs "
    "of too large a scale, or an output layer before a sigmoid or tanh.",
    "Smaller weights (`initdiag.repair(model)`), or scaled inputs. For an output: leave the "
    "activation out and take the loss that expects logits, or scale the targets.",
)
SCRAMBLED = Kind(
    "IND028",
    "scrambled-input",
    _ERROR,
    "Rows that are near one another in the input are as far apart as any two in the last "
    "hidden layer: what the network learns of one row says nothing of its neighbours.",
    "A sine of a high frequency, or Fourier features of a large bandwidth, turn by several "
    "radians between two neighbouring rows. On two or three coordinates this is wanted; on many "
    "inputs, neighbours are too far apart for it.",
    "Lower the frequency of the first layer, or the bandwidth of the features.",
)
STEP_TOO_SMALL = Kind(
    "IND029",
    "step-too-small",
    _ERROR,
    "The learning rate is so small for the loss's curvature that some hundred steps learn next "
    "to nothing.",
    "A mean over many outputs divides the gradient by their number; small inputs or small "
    "weights shrink it as well.",
    "Raise the learning rate up to the number that the finding names, or take Adam, whose steps "
    "do not depend on the gradient's size.",
)
SOFTMAX_BEFORE_LOSS = Kind(
    "IND030",
    "softmax-before-loss",
    _WARNING,
    "The output goes through a softmax, and the loss is a cross entropy, which in PyTorch takes "
    "logits and has a softmax of its own: two of them leave hardly any gradient.",
    "`nn.Softmax` as a last layer belongs to libraries whose loss takes probabilities.",
    "Leave the softmax out, and apply it only where probabilities are read; or take `nn.NLLLoss` "
    "behind a `log_softmax`.",
)
TRIAL_FAILED = Kind(
    "IND040",
    "trial-did-not-start",
    _ERROR,
    "Real steps of training were made on a copy of the network, and the loss did not fall "
    "below that of the best constant guess.",
    "The law sees the size of the gradient. A trial also sees what comes of it: steps that "
    "are too large or too small for this loss, outputs or gates that saturate on this input, "
    "targets of another scale, numbers that overflow.",
    "Look at the losses and at the layers' gradients and updates: numbers that are not finite "
    "and growing losses ask for a lower learning rate or smaller inputs; gradients near zero "
    "for inputs or outputs that do not saturate; small updates for a higher learning rate.",
)
WITNESSES_DIFFER = Kind(
    "IND041",
    "witnesses-disagree",
    _WARNING,
    "The law (or the measurement) and the trial say different things of whether training "
    "starts. The report says which is believed.",
    "The law speaks of all initialisations and of usual tasks, the trial of few draws, one "
    "batch and few steps. A trial that did not start raises the risk: to one half where the "
    "law expected a start, for half of such networks start later. One that started is "
    "believed where nothing of its setting was made up.",
    "Give the trial the targets, the loss and the optimiser of the real training, and a "
    "function that builds the network, so that several draws are tried. More steps "
    "(`trial=400`) tell a slow start from none.",
)
TERMS_IMBALANCED = Kind(
    "IND043",
    "loss-terms-imbalanced",
    _WARNING,
    "One named term of the loss has a far larger gradient than another: the smaller one "
    "hardly counts in the first steps.",
    "Terms of different units or orders of derivatives, such as a differential equation's "
    "residual and its boundary values, differ by powers of the scale of the problem.",
    "Weight the terms, so that their gradients are of like size, or write the problem in "
    "units in which its quantities are near one.",
)
TRIAL_SETTING = Kind(
    "IND044",
    "trial-setting",
    _NOTE,
    "What of the trial's setting was made up, or of the user's was left aside.",
    "A trial needs inputs, targets, a loss, an optimiser and a learning rate. What is not "
    "given is made up, so that something can be said. Schedules, gradient clipping and the "
    "optimiser's earlier steps are left aside.",
    "Pass `target=`, `loss_fn=` and the `torch.optim` optimiser itself.",
)
NO_TRIAL = Kind(
    "IND045",
    "no-trial",
    _NOTE,
    "A trial was asked for and could not be run.",
    "The weights have no values, the output is no tensor that a usual loss takes, or the loss "
    "has no gradient.",
    "Do what the reason says; most often: pass `loss_fn=`.",
)

CATALOGUE = {kind.code: kind for kind in tuple(globals().values()) if isinstance(kind, Kind)}
"""Code -> kind, in the order of the codes."""


def kind_of(code: str) -> Kind:
    """Return the kind of a code, or of a name, in any case of letters.

    Raises
    ------
    InvalidInput
        For an unknown one; the message names the nearest.

    Examples
    --------
    >>> kind_of("ind012").name
    'inputs-collapse'
    """
    known = {kind.code.lower(): kind for kind in CATALOGUE.values()}
    known |= {kind.name: kind for kind in CATALOGUE.values()}
    wanted = code.strip().lower().replace("_", "-")
    if wanted in known:
        return known[wanted]
    near = difflib.get_close_matches(wanted, known, n=1, cutoff=0)
    kind = known[near[0]]
    raise InvalidInput(
        explain(
            expected="the code or the name of a finding",
            got=repr(code),
            do=f"Did you mean {kind.code} ({kind.name})?",
        )
    )
