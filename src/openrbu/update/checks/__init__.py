"""What decides whether an update will happen, one module for each question of a plan.

A module yields `Check` records; `situation` has what it looks at. Nothing is changed.
"""
