"""What users write: flows, tasks, futures, annotations."""
