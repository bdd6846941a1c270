"""Modules shared by tests of several folders: models and heads to test with, requests, a running server.

Import them as `from tests.support.tiny_models import …`. A module that one folder uses stays in that folder.
"""
