"""Models from elsewhere: each question to each model on each data set is a job, and all answers are on one page.

    snakemake --snakefile workflow/models.smk --workflow-profile workflow/profiles/slurm --directory audit \
        --config cards=cards data=cifar10,mine.npz ask=robustness,attention-rank,alignment limit=1000

`cards` is a folder of model cards (`irt model card`). All paths are below --directory, where the answers are, too.
"""

import re
import sys
from pathlib import Path

from interpret_robust.models.card import Card

IRT = Path(sys.executable).parent / "irt"
"""The `irt` beside this Python: that of the job, wherever it runs."""

CARDS = {Card.read(path).name: str(path) for path in sorted(Path(config["cards"]).glob("*.json"))}
DATA = {Path(source).stem: source for source in config["data"].split(",")}
ASK, LIMIT = config["ask"].split(","), config.get("limit")
ANSWER = "analyses/{question}-{data}-{model}-test" + (f"-first{LIMIT}" if LIMIT else "") + ".h5"


wildcard_constraints:
    data="|".join(map(re.escape, DATA)),
    model="|".join(map(re.escape, CARDS)),
    question="|".join(map(re.escape, ASK)),


localrules:
    all,


rule all:
    input:
        "report.html",


rule answer:
    input:
        lambda wildcards: CARDS[wildcards.model],
    output:
        ANSWER,
    log:
        "logs/{question}-{data}-{model}.log",
    params:
        source=lambda wildcards: DATA[wildcards.data],
        limit=f"--limit {LIMIT}" if LIMIT else "",
        root=lambda wildcards, output: Path(output[0]).parent.parent,
    threads: config.get("threads", 1)
    resources:
        runtime=lambda wildcards, attempt: config.get("answer", 60) * attempt,
        mem_mb=lambda wildcards, attempt: config.get("mem_mb", 4000) * attempt,
        gpu=config.get("gpu", 0),
    shell:
        "{IRT} analyze {wildcards.question} --model {input} --dataset {params.source} {params.limit}"
        " --root {params.root} > {log} 2>&1"


rule page:
    input:
        expand(ANSWER, data=DATA, question=ASK, model=CARDS),
    output:
        "report.html",
    log:
        "logs/report.log",
    params:
        root=lambda wildcards, output: Path(output[0]).parent,
    resources:
        mem_mb=lambda wildcards, attempt: config.get("mem_mb", 4000) * attempt,
    shell:
        "{IRT} report --root {params.root} > {log} 2>&1"
