"""White-box attacks on images: FGSM and PGD, through captum, within epsilon of each pixel.

FGSM: I. Goodfellow, J. Shlens, C. Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015, section 4. PGD:
A. Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018, equation 2.1 and section 5:
a random start within the bound, then steps along the gradient's sign, projected back. Epsilon is a fraction of the
range 0..1 of pixels before normalization, and pixels stay within that range.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64
from torch import Tensor

EPSILONS = (1 / 255, 2 / 255, 4 / 255, 8 / 255, 0.1, 0.3)
"""Epsilons of attacks: up to 8/255 for photographs (Madry et al. on CIFAR-10), 0.1 and 0.3 for digits (on MNIST)."""
_STEPS = 40
_STEP_FRACTION = 2.5
"""Length of all 40 steps of PGD together, in epsilons (Madry et al. take 40 on MNIST): enough to reach any place within
the bound from any other (their robustness library's rule)."""
_SEED = 0


def attack_fgsm(
    predict: Callable[[Tensor], Tensor],
    pixels: Float32[Tensor, "batch channels height width"],
    labels: Int64[Tensor, " batch"],
    epsilon: float,
) -> Float32[Tensor, "batch channels height width"]:
    """Return `pixels + epsilon * sign(gradient)`, clamped to 0..1; `predict` turns pixels in 0..1 into logits."""
    from captum.robust import FGSM

    attack = FGSM(predict, cross_entropy, lower_bound=0.0, upper_bound=1.0)
    # By default captum takes gradients below 1e-6 for zero, which leaves those alone of which a network is most sure.
    attack.zero_thresh = 0.0
    with _silence_captum():
        found: Tensor = attack.perturb(pixels, epsilon, labels)
    return found.detach()


def attack_pgd(
    predict: Callable[[Tensor], Tensor],
    pixels: Float32[Tensor, "batch channels height width"],
    labels: Int64[Tensor, " batch"],
    epsilon: float,
) -> Float32[Tensor, "batch channels height width"]:
    """Return adversarial pixels after 40 steps within epsilon of the given ones, in 0..1; the same on every call."""
    from captum.robust import PGD

    attack = PGD(predict, cross_entropy, lower_bound=0.0, upper_bound=1.0)
    attack.fgsm.zero_thresh = 0.0
    step = _STEP_FRACTION * epsilon / _STEPS
    with _silence_captum(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        found: Tensor = attack.perturb(pixels, epsilon, step, _STEPS, labels, random_start=True)
    return found.detach()


ATTACKS = {"fgsm": attack_fgsm, "pgd": attack_pgd}


def cross_entropy(
    logits: Float32[Tensor, "batch classes"], labels: Int64[Tensor, " batch"]
) -> Float32[Tensor, " batch"]:
    """Return the loss of each sample: captum sums their gradients, so that none depends on the batch."""
    return F.cross_entropy(logits, labels, reduction="none")


@contextmanager
def _silence_captum() -> Iterator[None]:
    """Silence captum's warning that it makes inputs require gradients, as it must."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Input Tensor .* did not already require gradients", module="captum")
        yield
