"""Any Hugging Face decoder: loading, the attention hook, heads, checkpoints. Trainer and engine run one forward."""
