"""What others see of a run while it trains: Prometheus through Ray, MLflow, Weights & Biases."""
