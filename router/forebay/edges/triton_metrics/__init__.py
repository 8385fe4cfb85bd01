"""The load of Triton's engines, scraped from `/metrics`."""

from forebay.edges.triton_metrics.page import parse
from forebay.edges.triton_metrics.scraper import PERIOD_S, MetricsScraper

__all__ = ["PERIOD_S", "MetricsScraper", "parse"]
