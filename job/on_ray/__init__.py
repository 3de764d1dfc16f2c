"""Ray as this project uses it: clusters and nodes, trainings, scaling, storage."""
