"""Rankings for people and for programs. rich is imported here and nowhere else."""
