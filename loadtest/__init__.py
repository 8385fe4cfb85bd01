"""Load tests: open-loop arrivals, real prompts, a report against the SLOs, sweeps."""
