"""What a user would write instead of ours, with other libraries: attacks, a training loop, loops over images.

The networks are ours, as they were trained, with all their layers. In `Layout.PLAIN` their formulas are written as
anybody would write them. `Layout.FAST` is what somebody does who knows PyTorch well: our layers, with all that makes
them fast, network and images in channels-last memory and, where nothing is trained, weights that ask for no gradients.
"""

import enum
import importlib
import math
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import entropy, page_trend_test, spearmanr
from torch import Tensor, nn

from interpret_robust.analyses.engine.work import Work
from interpret_robust.core.arrays import AnyArray
from interpret_robust.datasets.batches import TrainingBatches
from interpret_robust.models import Classifier, build, checkpoint, resnet
from interpret_robust.models.losses import margin_loss
from interpret_robust.training.job import Job

Attack = Callable[[nn.Module, Tensor, Tensor, float, float], Tensor]
"""Model, images, labels, eps and step size give adversarial images."""

RESAMPLES = 2000


class Layout(enum.Enum):
    """How a network is written, and how it and its images lie in memory."""

    PLAIN = torch.contiguous_format
    FAST = torch.channels_last

    def name_contender(self, library: str) -> str:
        """Return the name of a library's contender in this layout."""
        return library if self is Layout.PLAIN else f"{library}, tuned"


class Batch(NamedTuple):
    """Images (N, C, H, W) in [0, 1] and labels (N,)."""

    images: Tensor
    labels: Tensor


class PlainStandardization(resnet.PerImageStandardization):
    """The same, by its definition."""

    def forward(self, images: Tensor) -> Tensor:
        """Standardize each of the images (N, C, H, W), whose pixels lie in [0, 1]."""
        difference = images - images.mean((1, 2, 3), keepdim=True)
        deviation = difference.square().mean((1, 2, 3), keepdim=True).sqrt()
        return difference / deviation.clamp_min(1 / (255 * images[0].numel() ** 0.5))


class PlainUnit(resnet.Unit):
    """The same, with nothing done in place."""

    def forward(self, x: Tensor) -> Tensor:
        """Map features (N, C, H, W) to features."""
        activation = F.leaky_relu(self.norm1(x), resnet.NEGATIVE_SLOPE)
        hidden_features = F.leaky_relu(self.norm2(self.conv1(activation)), resnet.NEGATIVE_SLOPE)
        features: Tensor = self.conv2(hidden_features) + self.shortcut(activation if self.activate_shortcut else x)
        return features


class PlainResNet(resnet.ResNet):
    """The same, with nothing done in place."""

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, C, H, W) in [0, 1] to local features."""
        return F.leaky_relu(self.norm(self.units(self.stem(self.standardize(images)))), resnet.NEGATIVE_SLOPE)


PLAIN = {resnet.PerImageStandardization: PlainStandardization, resnet.Unit: PlainUnit, resnet.ResNet: PlainResNet}


def lay_out(model: Classifier, layout: Layout) -> Classifier:
    """Put a model in a layout, and return it."""
    if layout is Layout.PLAIN:
        for module in model.modules():
            module.__class__ = PLAIN.get(type(module), type(module))  # the weights keep their names
    return model.to(memory_format=layout.value)


Maps = Callable[[nn.Module, Sequence[Batch]], AnyArray]
"""Model and batches give gradients (N, C, H, W) of the cross-entropy with respect to pixels."""


def load_model(path: Path, layout: Layout) -> Classifier:
    """Return a checkpoint's network in eval mode."""
    return lay_out(checkpoint.read(path).model(torch.device("cpu")), layout).requires_grad_(layout is Layout.PLAIN)


def load_batches(work: Work, layout: Layout) -> list[Batch]:
    """Return the images of an analysis, as batches in a layout."""
    return [Batch(batch.images.contiguous(memory_format=layout.value), batch.labels) for batch in work.batches()]


def torchattacks_pgd(steps: int) -> Attack:
    """Return torchattacks' PGD."""
    import torchattacks

    def attack(model: nn.Module, images: Tensor, labels: Tensor, eps: float, step: float) -> Tensor:
        adversarial: Tensor = torchattacks.PGD(model, eps=eps, alpha=step, steps=steps)(images, labels)
        return adversarial

    return attack


def foolbox_pgd(steps: int) -> Attack:
    """Return foolbox's PGD."""
    import foolbox

    def attack(model: nn.Module, images: Tensor, labels: Tensor, eps: float, step: float) -> Tensor:
        foolbox_model = foolbox.PyTorchModel(model, bounds=(0, 1), device=images.device)
        pgd = foolbox.attacks.LinfPGD(abs_stepsize=step, steps=steps)
        adversarial: Tensor = pgd.run(foolbox_model, images, foolbox.criteria.Misclassification(labels), epsilon=eps)
        return adversarial

    return attack


def art_pgd(steps: int) -> Attack:
    """Return the PGD of the Adversarial Robustness Toolbox."""
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    def attack(model: nn.Module, images: Tensor, labels: Tensor, eps: float, step: float) -> Tensor:
        classes = model(images[:1]).shape[1]
        classifier = PyTorchClassifier(
            model, nn.CrossEntropyLoss(), images.shape[1:], classes, clip_values=(0, 1), device_type="cpu"
        )
        options = {"eps": eps, "eps_step": step, "max_iter": steps, "num_random_init": 1, "batch_size": len(images)}
        pgd = ProjectedGradientDescentPyTorch(classifier, verbose=False, **options)
        return torch.from_numpy(pgd.generate(images.numpy(), labels.numpy()))

    return attack


def import_adv_lib() -> Any:
    """Return adv-lib's attacks. Their charts need visdom, and are not used: a stub takes its place."""
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))
    return importlib.import_module("adv_lib.attacks")


def adv_lib_pgd(steps: int) -> Attack:
    """Return adv-lib's PGD."""
    pgd = import_adv_lib().pgd_linf

    def attack(model: nn.Module, images: Tensor, labels: Tensor, eps: float, step: float) -> Tensor:
        adversarial: Tensor = pgd(model, images, labels, eps, steps=steps, absolute_step_size=step)
        return adversarial

    return attack


def adv_lib_apgd(steps: int) -> Attack:
    """Return adv-lib's APGD on the cross-entropy, which chooses its steps itself."""
    apgd = import_adv_lib().apgd

    def attack(model: nn.Module, images: Tensor, labels: Tensor, eps: float, _: float) -> Tensor:
        adversarial: Tensor = apgd(model, images, labels, eps, math.inf, n_iter=steps, loss_function="ce")
        return adversarial

    return attack


def torchattacks_apgd(steps: int) -> Attack:
    """Return torchattacks' APGD on the cross-entropy."""
    import torchattacks

    def attack(model: nn.Module, images: Tensor, labels: Tensor, eps: float, _: float) -> Tensor:
        adversarial: Tensor = torchattacks.APGD(model, eps=eps, steps=steps)(images, labels)
        return adversarial

    return attack


def pyautoattack_apgd(steps: int) -> Attack:
    """Return APGD on the cross-entropy of AutoAttack's authors, as PyPI has it."""
    from pyautoattack.autopgd_base import APGDAttack

    def attack(model: nn.Module, images: Tensor, labels: Tensor, eps: float, _: float) -> Tensor:
        apgd = APGDAttack(model, n_iter=steps, norm="Linf", eps=eps, loss="ce", seed=0, device="cpu")
        adversarial: Tensor = apgd.perturb(images, labels)
        return adversarial

    return attack


def margin_pgd(steps: int) -> Attack:
    """Return PGD on the margin, which no library has: torchattacks' loop with another loss."""

    def attack(model: nn.Module, images: Tensor, labels: Tensor, eps: float, step: float) -> Tensor:
        adversarial = (images + torch.empty_like(images).uniform_(-eps, eps)).clamp(0, 1)
        for _ in range(steps):
            adversarial.requires_grad_()
            (gradient,) = torch.autograd.grad(margin_loss(model(adversarial), labels).sum(), adversarial)
            candidate = adversarial.detach() + step * gradient.sign()
            adversarial = (images + (candidate - images).clamp(-eps, eps)).clamp(0, 1)
        return adversarial

    return attack


def is_right(model: nn.Module, images: Tensor, labels: Tensor) -> AnyArray:
    """Return which images (N,) are classified correctly."""
    with torch.no_grad():
        is_correct: AnyArray = (model(images).argmax(1) == labels).numpy()
    return is_correct


class TrainingLoop:
    """Adversarial training as a tutorial writes it, with another library's attack: SGD on Eq. 7.

    Batches, augmentation, first weights and weight decay are those of ours.
    """

    def __init__(self, job: Job, attack_of: Callable[[int], Attack], layout: Layout) -> None:
        recipe, dataset = job.recipe, job.dataset
        self.layout, self.recipe, self.step = layout, recipe, 0
        self.attack = attack_of(recipe.attack_steps)
        self.weight = recipe.feature_weight(job.variant)
        self.batches = TrainingBatches(
            dataset.train, recipe.batch_size, job.seed, torch.device("cpu"), pad=recipe.pad, flip=recipe.flip
        )
        model = build(job.architecture, job.variant.head, dataset.image_shape, len(dataset.class_names), seed=job.seed)
        self.model = lay_out(model, layout).train()
        parameters = list(model.parameters())
        matrices, vectors = (
            [weights for weights in parameters if (weights.ndim > 1) == decays] for decays in (True, False)
        )
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)

    def advance(self) -> None:
        """Take one training step."""
        images, labels = self.batches.batch(self.step)
        images = images.contiguous(memory_format=self.layout.value)
        self.model.eval()
        adversarial = self.attack(self.model, images, labels, self.recipe.eps, self.recipe.attack_step)
        self.model.train()
        pooled_features = self.model.features(adversarial).pooled
        loss = F.cross_entropy(self.model.classifier(pooled_features), labels)
        if self.weight:
            loss = loss + self.weight * (self.model.features(images).pooled - pooled_features).norm(dim=1).mean()
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.step += 1


class Loss(nn.Module):
    """A network that answers with the cross-entropy of each class, whose gradient is what our maps show."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the cross-entropies (N, classes) of images (N, C, H, W)."""
        return -F.log_softmax(self.model(images), dim=1)


def captum_maps(batch_size: int = 250) -> Maps:
    """Return gradient maps by captum's Saliency, `batch_size` images at a time."""
    from captum.attr import Saliency

    def maps(model: nn.Module, batches: Sequence[Batch]) -> AnyArray:
        saliency, gradients = Saliency(Loss(model)), []
        for batch in batches:
            for images, labels in zip(
                torch.split(batch.images, batch_size), torch.split(batch.labels, batch_size), strict=True
            ):
                gradients.append(saliency.attribute(images, target=labels, abs=False).numpy())
        return np.concatenate(gradients)

    return maps


def quantus_maps() -> Maps:
    """Return gradient maps by quantus.explain, a batch at a time."""
    import quantus

    options: dict[str, Any] = {"method": "Gradient", "reduce_axes": (), "device": "cpu"}

    def maps(model: nn.Module, batches: Sequence[Batch]) -> AnyArray:
        loss = Loss(model)
        gradients = [quantus.explain(loss, batch.images.numpy(), batch.labels.numpy(), **options) for batch in batches]
        return np.concatenate(gradients)

    return maps


def rank_attention(
    model: Classifier, batches: Sequence[Batch], attack: Attack, eps: float, step: float
) -> dict[str, AnyArray]:
    """Compare attention with robustness as a researcher writes it: image by image, with SciPy's `spearmanr`.

    Return for each image what our analysis has, and over all images the paper's curve, the mean correlations and
    Page's test; not the other curves that our analysis has.
    """
    random = np.random.default_rng(0)
    series: dict[str, list[Any]] = {}

    def add(**columns: Any) -> None:
        for name, value in columns.items():
            series.setdefault(name, []).append(value)

    for images, labels in batches:
        adversarial = attack(model, images, labels, eps, step)
        noisy = (images + torch.empty_like(images).uniform_(-eps, eps)).clamp(0, 1)
        with torch.no_grad():
            clean_features, adversarial_features, noisy_features = (
                model.features(inputs) for inputs in (images, adversarial, noisy)
            )
            answers = (
                model.classifier(clean_features.pooled).argmax(1),
                model.classifier(adversarial_features.pooled).argmax(1),
            )
        distances = (adversarial_features.local - clean_features.local).norm(dim=1).flatten(1).numpy()
        noise_distances = (noisy_features.local - clean_features.local).norm(dim=1).flatten(1).numpy()
        norms = clean_features.local.norm(dim=1).flatten(1).numpy()
        assert clean_features.attention is not None and adversarial_features.attention is not None
        for image, attention in enumerate(clean_features.attention.numpy()):
            distance, norm = distances[image], norms[image]
            with_distance = spearmanr(attention, -distance).statistic
            with_norm, of_both = spearmanr(attention, norm).statistic, spearmanr(-distance, norm).statistic
            add(
                label=int(labels[image]),
                prediction_clean=int(answers[0][image]),
                prediction_adversarial=int(answers[1][image]),
                attention=attention,
                attention_adversarial=adversarial_features.attention[image].numpy(),
                spearman=with_distance,
                spearman_relative=spearmanr(attention, -distance / norm).statistic,
                spearman_partial=(with_distance - with_norm * of_both) / np.sqrt((1 - with_norm**2) * (1 - of_both**2)),
                spearman_noise=spearmanr(attention, -noise_distances[image]).statistic,
                spearman_shuffled=spearmanr(random.permutation(attention), -distance).statistic,
                entropy=entropy(attention),
                effective_positions=1 / (attention**2).sum(),
                ranked=attention[np.argsort(distance)],
            )
    columns = {name: np.array(values) for name, values in series.items()}
    curves = columns["ranked"]
    for name in ("ranked", *(column for column in columns if column.startswith(("spearman", "entropy", "effective")))):
        columns[f"{name}_interval"] = _bootstrap(columns[name], random)
    columns["page"] = np.array([page_trend_test(curves).pvalue, page_trend_test(curves[:, ::-1]).pvalue])
    return columns


def _bootstrap(values: AnyArray, random: np.random.Generator) -> AnyArray:
    count = len(values)
    means = [values[random.integers(count, size=count)].mean(0) for _ in range(RESAMPLES)]
    ends: AnyArray = np.quantile(means, [0.025, 0.975], axis=0)
    return ends
