"""The model card that is written where none is given: what the folder holds, no more."""

from ..models import Griffin
from ..models.sizes import parameter_count
from .format import Format
from .quantization import Quantization


def model_card(
    name: str, model: Griffin, form: Format, quantization: Quantization | None = None
) -> str:
    """Markdown with the front matter that hubs read."""
    config = model.config
    count = parameter_count(config)
    dtype = str(model.embed.weight.dtype).removeprefix("torch.")
    if quantization is not None:
        dtype += f", matrices in {' and '.join(sorted(set(quantization.kinds.values())))}"
    kinds = ", ".join(mixer.kind for mixer in config.pattern)
    library = "transformers" if form.name == "huggingface" else "griffin-lm"
    return f"""---
library_name: {library}
pipeline_tag: text-generation
---

# {name}

{count:,} parameters in {dtype}: {config.layers} layers of width {config.width},
mixers {kinds} in turn, a vocabulary of {config.vocab:,}.
Written by griffin-lm in the format "{form.name}".

```python
import griffin_lm as griffin

lm = griffin.load("path/to/{name}")
```

What it was trained on, and what it is good for, is not recorded here.
"""
