"""The scripts, and what is claimed of them: conformance, models, races, crashes."""
