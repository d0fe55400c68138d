"""Small language models: found, loaded, scored and fine-tuned. The only place that knows torch."""
