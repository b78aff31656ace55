"""Utilities shared by the chapters of the executable book TumorImagingBench.

The modules are layered; each imports only from the ones before it:

settings, files -> phantoms -> cohorts -> splits, baselines -> patches -> models -> embeddings
-> stats, probes, survival, robustness, saliency, similarity -> plots -> cli.

Nothing is imported here, so that ``import tumorbench_utils`` costs nothing.
"""

__version__ = "0.1.0"
