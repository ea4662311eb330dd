"""Whole cohorts as one program: helpers over `Population.cohorts`, one module a framework."""
