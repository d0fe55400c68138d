"""lm-evaluation-harness on a YAML task of its own; run by ``evaluate.py`` in the harness's environment.

    PEER/bin/python benchmarks/peers/harness_peer.py MODEL FOLDER BATCH_SIZE

FOLDER holds rows.jsonl: id, prompt, label and labels of each question. The last line printed is JSON: the seconds of
the evaluation, the highest resident memory, and the log-likelihoods of the labels by question.
"""

import json
import sys
from pathlib import Path

from clock import now, rss_mib
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

TASK = """
task: given
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: "{{{{labels}}}}"
doc_to_target: "{{{{label}}}}"
target_delimiter: " "
metric_list: [{{metric: acc}}]
"""


def main() -> None:
    model, folder, batch_size = sys.argv[1:]
    rows = [json.loads(line) for line in (Path(folder) / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    (Path(folder) / "given.yaml").write_text(TASK.format(rows=Path(folder) / "rows.jsonl"))
    tasks = TaskManager(include_path=folder, include_defaults=False)
    lm = HFLM(pretrained=model, device="cpu", dtype="float32", batch_size=int(batch_size))
    # What is read and built once isn't counted.
    simple_evaluate(lm, tasks=["given"], task_manager=tasks, limit=1, bootstrap_iters=0)
    began = now()
    found = simple_evaluate(lm, tasks=["given"], task_manager=tasks, bootstrap_iters=0)
    seconds = now() - began
    scores = {
        rows[one["doc_id"]]["id"]: dict(
            zip(rows[one["doc_id"]]["labels"], (each[0] for each in one["filtered_resps"]), strict=True)
        )
        for one in found["samples"]["given"]
    }
    print()
    print(json.dumps({"seconds": seconds, "rss_mib": rss_mib(), "scores": scores}))


if __name__ == "__main__":
    main()
