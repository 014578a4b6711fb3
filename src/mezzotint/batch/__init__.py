"""Many prompts from a file, many answers into a file: resumable, nothing lost, nothing doubled."""
