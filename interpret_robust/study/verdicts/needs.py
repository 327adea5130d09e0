"""What a claim that is not tested needs: which models, how they have to be trained, and the command that makes them."""

from interpret_robust.study.paper import ON_MNIST, Claim
from interpret_robust.study.plan import SCALES
from interpret_robust.study.verdicts.ranges import WIDTHS


def needs(claim: Claim, dataset: str, architecture: str) -> str:
    """Return in a sentence or two why a claim was not tested on models of a dataset; commands stand in backticks.

    `architecture` is that of the models, empty where they are from elsewhere.
    """
    if not claim.is_about(dataset):
        return f"The paper says this of {'MNIST' if claim.section == ON_MNIST else 'data other than MNIST'}."
    models = " and ".join(claim.variants)
    if claim.widths:
        return _both_widths(models, dataset, architecture)
    if claim.range:
        low, high = claim.range
        other_name = " (of at-att-reg weight_att_reg)" if "at-att-reg" in claim.variants else ""
        return (
            f"Needs `irt analyze {claim.analysis}` of {models} trained with lambda {low:g} and with {high:g}: "
            f"`irt train at-reg --set weight_reg={low:g} --root FOLDER`{other_name}, a folder for each lambda."
        )
    alike = ", with one seed and on the same images" if claim.compares else ""
    return f"Needs `irt analyze {claim.analysis}` of {models}{alike}."


def _both_widths(models: str, dataset: str, architecture: str) -> str:
    """Return which architectures are missing beside that which is there, and what trains them."""
    pair = next((widths for widths in WIDTHS if architecture in widths), WIDTHS[0])
    absences = [width for width in pair if width != architecture]
    return (
        f"Needs `irt analyze robustness` of {models} of the architecture {' and '.join(absences)} too, with the same "
        f"seeds and on the same images: {_command(dataset, absences[-1])}."
    )


def _command(dataset: str, architecture: str) -> str:
    """Return the study that trains an architecture on a dataset, or the command that trains one model."""
    for scale, setups in SCALES.items():
        if (setups["table3"].dataset, setups["table3"].architecture) == (dataset, architecture):
            return f"`irt reproduce table3 --scale {scale}` trains and analyzes them"
    return (
        f"`irt reproduce table3` compares other data; `irt train at --arch {architecture} --dataset {dataset}` "
        "trains one of them"
    )
