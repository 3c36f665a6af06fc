"""fledgling, the bundled model: prose and memo rows, on one CPU core.

    griffin pretrain recipes/fledgling.py --data DIR --out DIR

DIR holds the books of ELTeC-eng as .jsonl.bz2; the model card names the source.
"""

from griffin_lm.training.config import TrainConfig

HELD_OUT = (
    "ENG18471",  # Emily Brontë, Wuthering Heights
    "ENG18540",  # Charles Dickens, Hard Times
    "ENG18621",  # Mary Elizabeth Braddon, Lady Audley's Secret
    "ENG18911",  # George Gissing, New Grub Street
    "ENG18952",  # H. G. Wells, The Time Machine
    "ENG19080",  # G. K. Chesterton, The Man Who Was Thursday
)


def recipe() -> TrainConfig:
    """One core with AVX512-BF16 does 9 to 11 thousand tokens a second."""
    return TrainConfig(model="fledgling", held_out=HELD_OUT)
