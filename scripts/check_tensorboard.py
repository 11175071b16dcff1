"""Does TensorBoard read what ltrain writes?

    LTRAIN_REPORT_EXAMPLE=example cargo test --test report example_is_written
    python scripts/check_tensorboard.py example

Reads every event folder below the given one with TensorBoard's own loader and prints each tag. With the example of
tests/report it also checks the values against report.json, and that the steps a crash undid are gone. Needs
`tensorboard`; checks trainer_state.json too if `transformers` is there.
"""

import json
import math
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def check_example(run: dict, scalars: dict) -> None:
    for tag, key in [("train/loss", "loss"), ("train/learning_rate", "lr")]:
        expected = [(s["step"], s[key]) for s in run["steps"]]
        got = scalars[tag]
        assert [s for s, _ in got] == [s for s, _ in expected], f"{tag}: steps differ"
        for (step, a), (_, b) in zip(got, expected):
            assert math.isclose(a, b, rel_tol=1e-6), f"{tag} at step {step}: {a} vs {b}"


def check_state(path: Path, steps: int) -> None:
    try:
        from transformers.trainer_callback import TrainerState
    except ImportError:
        print("trainer_state.json: skipped (no transformers)")
        return
    state = TrainerState.load_from_json(str(path))
    assert state.global_step == steps and len(state.log_history) == steps
    print(f"trainer_state.json: {len(state.log_history)} entries, read by transformers")


def main() -> None:
    root = Path(sys.argv[1])
    folders = sorted({p.parent for p in root.rglob("events.out.tfevents.*")})
    assert folders, f"no event files below {root}"
    for folder in folders:
        scalars = read(folder)
        for tag, values in scalars.items():
            print(f"{folder.name}  {tag}: {len(values)} values, steps {values[0][0]} to {values[-1][0]}")
        report = root / "report.json"
        if report.exists():
            run = json.loads(report.read_text())
            check_example(run, scalars)
            print("values agree with report.json")
    state = root / "trainer_state.json"
    if state.exists() and (root / "report.json").exists():
        check_state(state, len(run["steps"]))


if __name__ == "__main__":
    main()
