"""Everything is declared in setup.cfg; this file lets `python setup.py` and old tools find it."""

from setuptools import setup

setup()
