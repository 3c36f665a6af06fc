"""Fine-tuning: rows with answers to a full set of weights, or to a LoRA adapter."""
