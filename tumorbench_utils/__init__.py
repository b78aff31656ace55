"""Utilities shared by the chapters of the executable book TumorImagingBench.

The modules are layered; each imports only from the ones before it:

settings, files -> checks, digests -> downloads -> stats -> patches -> cohorts
-> splits, baselines -> models -> embeddings
-> probes, handcrafted, survival, robustness, saliency, similarity
-> results -> endpoints -> submissions -> leaderboard -> plots -> pages -> check_cohort, report

Nothing is imported here, so that ``import tumorbench_utils`` costs nothing.
"""

__version__ = "0.1.0"
