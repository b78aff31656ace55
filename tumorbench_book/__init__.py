"""Run the chapters with papermill, as few as needed, and build the pages from what they returned.

A chapter is run again when its key changes. The key covers its cells, the package modules that it
reaches through imports, the files under ``data/``, the fingerprint of ``TUMORBENCH_DATA``, the
edition and the versions of the libraries that compute. It is kept in the executed notebook, so
there is no second place that can get out of step.
"""
