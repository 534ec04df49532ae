"""The only code that touches a model: reversible forward pre-hooks, removed by handle, never an edited class."""
