"""What others see of a run: Prometheus through Ray, MLflow, Weights & Biases, the console."""
