"""Evaluation: data sets, judges, runs that can be continued, statistics and reports."""
