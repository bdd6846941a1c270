"""Drafters for tests only. The engine takes them by module path, as it takes any drafter outside the package."""
