"""lm-eval's own command line, which knows `--model griffin`: python -m griffin_lm.evals.harness"""

from .running import command_line

if __name__ == "__main__":
    command_line()
