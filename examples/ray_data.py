"""A file of prompts, answered by many processes: Ray Data.

python examples/ray_data.py PROMPTS.jsonl ANSWERS [MODEL]

A line of PROMPTS is {"prompt": "..."}; ANSWERS becomes a folder of such lines with "text" beside.
"""

import sys

import ray.data

import griffin_lm as griffin

PROCESSES, TOGETHER = 2, 8  # copies of the model; prompts that each continues at once


class Answers:
    """One process's model."""

    def __init__(self, model: str) -> None:
        self.lm = griffin.load(model)

    def __call__(self, rows: dict) -> dict:
        prompts = [str(prompt) for prompt in rows["prompt"]]
        # greedy; sampled, every prompt should bring a seed of its own: who gets it is not settled
        outs = self.lm.generate(prompts, max_new_tokens=32)
        return rows | {"text": [out.text for out in outs]}


if __name__ == "__main__":
    prompts, answers, *model = sys.argv[1:]
    (
        ray.data.read_json(prompts, lines=True)
        .repartition(2 * PROCESSES)  # a small file would be one block, and one process's work
        .map_batches(
            Answers,
            fn_constructor_args=(model or ["fledgling"])[:1],
            batch_size=TOGETHER,
            num_cpus=0.5,  # the other halves read and write
            compute=ray.data.ActorPoolStrategy(size=PROCESSES),
        )
        .write_json(answers, force_ascii=False)
    )
    print(f"answers in {answers}")
