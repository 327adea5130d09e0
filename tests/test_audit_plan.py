"""What `benchmarks/audit_plan.py` computes and simulates, against numbers by hand and closed forms."""

import importlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from torch import nn

REPOSITORY = Path(__file__).parents[1]
ROBUSTNESS = REPOSITORY / "analyses" / "robustness-cifar10-small-at-seed0-test-apgd100-first1000.h5"
RESULTS = REPOSITORY / "docs" / "scale" / "audit_plan.json"


@pytest.fixture
def plan(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("audit_plan")


# Arithmetic and what it rests on


def test_the_size_of_an_audit(plan: Any) -> None:
    size = plan.Size(1000, 4, 10_000, 300)
    assert (size.pairs, size.all_gradients) == (4000, 12_000_000_000)
    assert size.hours(1e6) == pytest.approx(12_000 / 3600)
    assert size.disk_bytes(per_file=7, per_image=3) == 4000 * 30_007


def test_a_gradient_is_counted_as_two_forward_passes(plan: Any) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Flatten(), nn.Linear(4 * 6 * 8, 5, bias=False)
    )
    forward = 2 * (9 * 3 * 4 + 4 * 5) * 6 * 8
    assert plan.count_operations(network, (3, 6, 8)) == ((3, 6, 8), 9 * 3 * 4 + 4 * 6 * 8 * 5, forward, 2 * forward)


def test_core_seconds_are_those_of_all_threads(plan: Any, tmp_path: Path) -> None:
    gradient = {"work": "gradient of PGD in evaluation", "images": 10, "seconds": [3.0, 5.0, 4.0]}
    works = [{"work": "training step"}, gradient | {"compute": {"per_image": 80.0}}]
    path = tmp_path / "limit.json"
    path.write_text(json.dumps({"options": {"threads": "2"}, "works": works}))
    assert plan.read_cpu(path) == (0.8, 100.0)


def test_a_file_is_its_images_and_the_rest(plan: Any) -> None:
    question = plan._measure_file(ROBUSTNESS, 150.0)
    assert question.bytes_per_file + 1000 * question.bytes_per_image == ROBUSTNESS.stat().st_size
    # label, gradients and the index; 2 targets natural, 6 readings of both; two norms a reading.
    assert question.partial_bytes_per_image == 2 + 4 + 4 + 2 * (2 + 4) + 8 * 2 * (2 + 4) + 8 * 2 * 4
    assert (question.images, question.seconds) == (1000, 0.15)


def test_reading_one_dataset_leaves_the_others(plan: Any, tmp_path: Path) -> None:
    path = tmp_path / "two.h5"
    with h5py.File(path, "w") as file:
        file["large"], file["small"] = np.arange(100_000), np.arange(10)
    reads = plan.count_reads(path, "small")
    assert reads["bytes of the file"] == path.stat().st_size > 800_000
    assert 80 <= reads["bytes read"] < 10_000
    assert 1 <= reads["blocks of 64 KiB"] <= 3
    large = plan.count_reads(path, "large")
    assert large["bytes read"] > 800_000
    assert large["blocks of 64 KiB"] == math.ceil(path.stat().st_size / 65_536)


# One machine


def outcome(plan: Any, job: float, gaps: list[float], **costs: float) -> tuple[float, Any]:
    usage = plan.Usage()
    return plan.Machine(iter([*gaps, math.inf])).run(job, 0.0, plan.Costs(**costs), usage), usage


def test_a_job_that_is_never_pre_empted(plan: Any) -> None:
    end, usage = outcome(plan, 10.0, [], start=2.0, save=0.5, save_interval=4.0)
    assert end == usage.paid_time == 2 + 10 + 3 * 0.5
    assert (usage.work, usage.saving, usage.starting, usage.lost_work, usage.preemptions) == (10, 1.5, 2, 0, 0)
    assert usage.wasted_share == pytest.approx(3.5 / 13.5)


def test_what_was_saved_is_not_done_again(plan: Any) -> None:
    # Start to 2, saved at 6.5 and 11, gone at 13 with 2 lost; back at 23, gone at 24 with 1 lost; back at 34, 2 to do.
    end, usage = outcome(plan, 10.0, [13.0, 1.0], start=2.0, restart=10.0, save=0.5, save_interval=4.0)
    assert end == 34 + 2 + 0.5
    assert (usage.work, usage.saving, usage.starting, usage.lost_work, usage.restarting) == (10, 1.5, 2, 3, 20)
    assert usage.preemptions == 2


def test_without_saving_a_job_begins_anew(plan: Any) -> None:
    end, usage = outcome(plan, 10.0, [9.0, 10.2], restart=5.0, save=0.5)
    assert end == 9 + 5 + 10.2 + 5 + 10.5
    assert (usage.work, usage.saving, usage.restarting) == (10, 0.5, 10)
    assert usage.lost_work == pytest.approx(19.2)


def test_a_pre_emption_before_the_start_and_one_in_a_save(plan: Any) -> None:
    # Gone at 1 of a start of 2; back at 4 and started; 4 + 3.8 is within the first save.
    end, usage = outcome(plan, 6.0, [1.0, 3.2], start=2.0, restart=3.0, save=0.5, save_interval=3.0)
    assert end == pytest.approx(1 + 3 + 3.2 + 3 + 7)
    assert (usage.starting, usage.work, usage.saving, usage.preemptions) == (0, 6, 1, 2)
    assert usage.lost_work == pytest.approx(1 + 3.2)


# Many machines


@pytest.mark.parametrize(("jobs", "gpus"), [(12, 4), (13, 4), (3, 5), (1, 1)])
def test_without_pre_emption_jobs_go_in_rounds(plan: Any, jobs: int, gpus: int) -> None:
    costs = plan.Costs(start=1.0, restart=9.0, save=0.25, save_interval=2.0)
    simulation = plan.simulate([8.0] * jobs, plan.make_fleet(gpus, math.inf, 0), costs)
    time = 1 + 8 + 4 * 0.25
    assert simulation.makespan == math.ceil(jobs / gpus) * time
    assert simulation.usage.paid_time == jobs * time
    assert simulation.idle == pytest.approx(1 - jobs * time / (gpus * simulation.makespan))


def test_the_longest_first_end_sooner(plan: Any) -> None:
    ends = {
        order: plan.simulate(order, plan.make_fleet(2, math.inf, 0), plan.Costs()) for order in [(1, 1, 2), (2, 1, 1)]
    }
    assert [simulation.makespan for simulation in ends.values()] == [3, 2]
    assert ends[1, 1, 2].ends == [1, 1, 3]


RARE = {"start": 3.0, "restart": 40.0, "save": 0.5, "save_interval": 30.0}
AT_END = {**RARE, "save_interval": math.inf}


@pytest.mark.parametrize("costs", [RARE, AT_END])
def test_no_work_is_lost_or_done_twice(plan: Any, costs: dict[str, float]) -> None:
    jobs = np.random.default_rng(1).uniform(1, 400, 200).tolist()
    simulation = plan.simulate(jobs, plan.make_fleet(7, 300.0, 1), plan.Costs(**costs))
    assert simulation.usage.preemptions > 50
    assert simulation.usage.work == pytest.approx(sum(jobs))
    assert simulation.usage.starting <= 3 * len(jobs)
    assert simulation.usage.restarting == 40 * simulation.usage.preemptions
    assert len(simulation.ends) == len(jobs)
    assert sum(simulation.free) == pytest.approx(simulation.usage.paid_time)
    assert simulation.makespan == max(simulation.free) >= sum(jobs) / 7


def test_a_seed_decides_all(plan: Any) -> None:
    first, second, other = (
        plan.simulate([50.0] * 40, plan.make_fleet(3, 100.0, seed), plan.Costs(**RARE)) for seed in (5, 5, 6)
    )
    assert first == second
    assert first.makespan != other.makespan


# The closed form


@pytest.mark.parametrize(
    ("job", "mean", "costs"),
    [(600.0, 300.0, RARE), (605.0, 2000.0, RARE), (200.0, 300.0, AT_END), (20.0, 300.0, {**AT_END, "start": 60.0})],
)
def test_the_simulation_agrees_with_the_closed_form(
    plan: Any, job: float, mean: float, costs: dict[str, float]
) -> None:
    costs = plan.Costs(**costs)
    times = [plan.simulate([job] * 400, plan.make_fleet(4, mean, seed), costs).usage.paid_time for seed in range(12)]
    average, expected = plan.average(times), 400 * plan.expect_paid_time(job, mean, costs)
    assert average.low <= expected <= average.high
    assert average.high - average.low < 0.05 * expected


def test_the_closed_form_by_hand(plan: Any) -> None:
    costs = plan.Costs(start=7.0, restart=20.0, save=1.0, save_interval=9.0)
    by_hand = 120 * (2 * (math.exp(0.1) - 1) + math.exp(0.03) - 1 + 1 - math.exp(-0.07))
    assert plan.expect_paid_time(20.0, 100.0, costs) == pytest.approx(by_hand)
    assert plan.expect_paid_time(20.0, math.inf, costs) == 7 + 20 + 3
    assert plan.expect_paid_time(20.0, 1e9, costs) == pytest.approx(30)
    assert plan.expect_paid_time(20.0, 100.0, replace(costs, save_interval=math.inf, start=0.0)) == pytest.approx(
        120 * math.expm1(0.21)
    )


def test_the_first_order_is_that_of_rare_pre_emptions(plan: Any) -> None:
    costs = plan.Costs(restart=20.0, save=0.1, save_interval=10.0)
    assert plan.estimate_waste(1000.0, costs) == pytest.approx((0.01 + 0.025) / 1.035)
    exact = 1 - 1e5 / plan.expect_paid_time(1e5, 1e4, costs)
    assert plan.estimate_waste(1e4, costs) == pytest.approx(exact, rel=0.01)


def test_over_seeds(plan: Any) -> None:
    assert plan.average([2.0, 2.0, 2.0]) == (2, 2, 2)
    value, low, high = plan.average([1.0, 3.0])  # t of one degree of freedom: 12.706
    assert (value, high - value) == (2, pytest.approx(12.706, rel=1e-3))
    assert low + high == pytest.approx(4)


# What is written


def test_each_split_has_the_same_work(plan: Any) -> None:
    size, costs = plan.Size(10, 2, 500, 3), plan.Costs(start=1.0)
    cases = list(plan.make_cases(size, {("narrow", "low"): 10.0}, costs))
    assert {len(case.jobs) for case in cases} == {10, 20, 200}
    assert all(sum(case.jobs) == pytest.approx(size.all_gradients / 10) for case in cases)
    assert {case.costs.save_interval for case in cases} == {250 * 3 / 10, math.inf}
    unequal = list(plan.make_mixed_cases(size, 10.0, 1.0, costs, seed=0))
    assert all(sum(case.jobs) == pytest.approx(3000 * (9 / 10 + 1)) for case in unequal)
    assert all(sorted(case.jobs, reverse=True) == case.jobs for case in unequal[1::2])


def test_cells(plan: Any) -> None:
    assert plan.format_cell("jobs", 40_000) == "40,000"
    assert plan.format_cell("wasted", plan.Interval(0.125, 0.1, 0.15)) == "12.5 % [10.0, 15.0]"
    assert plan.format_cell("wasted, expected", 0.125) == "12.5 %"
    assert plan.format_cell("makespan, h", plan.Interval(1.5, 1.25, 1.75)) == "1.5 [1.25, 1.75]"


def test_what_is_written_comes_out_again(plan: Any) -> None:
    plan_file = json.loads(RESULTS.read_text(encoding="utf-8"))
    inputs, costs_of_machine = plan_file["inputs"], plan_file["measured"]
    size = plan.Size(*(inputs[name] for name in ("models", "datasets", "images", "gradients")))
    costs = plan.Costs(
        costs_of_machine["seconds to start a job"], inputs["restart"], costs_of_machine["seconds to save a batch"]
    )
    rate = inputs["tflops"][0] * 1e12 / costs_of_machine["networks"]["narrow"]["gradient_flops"]
    first = next(plan.make_cases(size, {("narrow", "low"): rate}, costs))
    seeds = range(inputs["seed"], inputs["seed"] + inputs["seeds"])
    row = json.loads(json.dumps(first.summarize(inputs["gpus"], 3600 * inputs["preempt_every"], seeds)))
    assert row.keys() == plan_file["simulation"][0].keys()
    for name, value in plan_file["simulation"][0].items():
        assert row[name] == (value if isinstance(value, str) else pytest.approx(value)), name
