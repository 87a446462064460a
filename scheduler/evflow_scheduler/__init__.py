"""The scheduler's shell: it reads the log, folds, decides, appends, and acts on what became durable."""
