"""What is asked: expressions, processes, data and domains; no finite elements here."""
