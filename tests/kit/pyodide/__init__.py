"""The package on CPython 3.14 and 3.15, as npm's pyodide brings them."""
