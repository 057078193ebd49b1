"""The scripts: conformance, model tests, races, crashes, and the defects that they avoid."""
