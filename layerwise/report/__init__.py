"""Pages and figures made from a run's saved files; nothing here trains or evaluates."""
